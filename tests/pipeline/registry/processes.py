"""Processes of their own, with the repository's modules."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]


def python(code: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    """A process that runs this code with these arguments."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def output(process: subprocess.Popen[str]) -> str:
    """What a process says, once it has ended well."""
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    return out.strip()


def without_privileges() -> None:
    """In a child: the rights of files count for root too (capabilities 1 and 2 override them)."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (1, 2):
        libc.prctl(24, capability, 0, 0, 0)
