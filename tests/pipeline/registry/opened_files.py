"""Which files this process opens, by an audit hook of Python's: it cannot be got round."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_opened: list[str] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None:
        _opened.append(os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes)) else str(arguments[0]))


sys.addaudithook(_hook)


@contextmanager
def files_opened(folder: Path) -> Iterator[list[str]]:
    """The files below a folder that Python opens meanwhile, each time that it does."""
    global _opened
    _opened, found = [], []
    try:
        yield found
    finally:
        found += [path for path in _opened if path.startswith(str(folder))]
        _opened = None
