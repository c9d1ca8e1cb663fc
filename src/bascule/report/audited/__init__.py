"""What an audit of one model found, in plain words: from the record of its run alone."""
