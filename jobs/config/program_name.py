"""How this program was started, for commands that users are given to paste."""

from __future__ import annotations

import sys
from pathlib import Path

RUN_PY, DARKROOM_RUN = "python run.py", "darkroom run"
"""What starts a run: in a checkout, and where it is installed."""


def program_name() -> str:
    """Which of both has started this process."""
    return RUN_PY if Path(sys.argv[0]).name == "run.py" else DARKROOM_RUN
