"""How this program was started, for commands that users are given to paste."""

from __future__ import annotations

import sys
from pathlib import Path

RUN_PY, DARKROOM_RUN = "python run.py", "darkroom run"
"""What starts a run: in a checkout, and where it is installed."""

REMOVED = "REMOVED"
"""Stands for a value that is not kept of a command. No such key takes it, so that the command is refused until a user
has put the value back: a proxy that was merely left out would go unnoticed."""


def program_name() -> str:
    """Which of both has started this process."""
    return RUN_PY if Path(sys.argv[0]).name == "run.py" else DARKROOM_RUN
