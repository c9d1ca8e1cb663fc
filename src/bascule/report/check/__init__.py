"""Conditions on the numbers of a table, for a gate in continuous integration."""
