"""Being here, this file makes pytest put `tests/jobs` on the import path: `manifest_rows` is shared by its tests."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from jobs.cli import entry


@pytest.fixture
def darkroom(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`darkroom ...` in this process: exit code, output, complaints."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["darkroom", *map(str, arguments)])
        code = entry.main()
        return code, *capfd.readouterr()

    return run
