"""A model or data set of one's own, outside a study: judged, scanned, repaired."""
