"""From configurations to a plan: jobs, models, memory fit, what is missing."""
