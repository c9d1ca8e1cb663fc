"""From a study file to a finished record: plan, run, resume, read."""
