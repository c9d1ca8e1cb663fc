"""From a plan to its record: cells one by one or side by side, continued where they stopped."""
