"""`python -m jobs` is `darkroom`."""

from jobs.cli import script

script()
