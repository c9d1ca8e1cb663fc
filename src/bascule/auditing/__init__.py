"""A trained model and its data, outside a study: measured, judged, scanned, repaired."""
