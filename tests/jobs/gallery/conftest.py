"""Every gallery of these tests has a cache folder, a registry and options of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from seen_pages import browser, seen

__all__ = ["browser", "seen"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, folder in (("XDG_CACHE_HOME", "cache"), ("XDG_CONFIG_HOME", "config"), ("DARKROOM_HOME", "home")):
        monkeypatch.setenv(name, str(tmp_path / folder))  # in place of the session's fixture of this name
    return tmp_path / "cache"
