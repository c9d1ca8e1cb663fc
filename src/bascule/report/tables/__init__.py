"""The joint table."""
