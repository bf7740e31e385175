"""What models have on disk while their weights wait there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs


def offload_folders(component: str = "") -> list[Path]:
    """Those of this process, for components whose name begins so."""
    root = Path(platformdirs.user_cache_dir("darkroom")) / "offload"
    found = root.iterdir() if root.exists() else ()
    return [folder for folder in found if folder.name.startswith(f"{os.getpid()}-") and f"-{component}" in folder.name]


@contextmanager
def unreadable(component: str = "") -> Iterator[None]:
    """Within the block nothing that waits on disk can be read; afterwards none of it was written once more."""
    files = [file for folder in offload_folders(component) for file in folder.iterdir()]
    assert files, "nothing waits on disk"
    for file in files:
        file.rename(file.with_suffix(".away"))
    yield
    for file in files:
        if file.parent.exists():
            assert not file.exists(), "written once more"
            file.with_suffix(".away").rename(file)
