"""What is kept of a run and read back: typed, checked, read without torch."""
