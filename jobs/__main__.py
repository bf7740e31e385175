"""`python -m jobs` is `darkroom`."""

import sys

from jobs.cli import main

sys.exit(main())
