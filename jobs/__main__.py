"""`python -m jobs` is `darkroom`."""

from jobs.cli.entry import script

script()
