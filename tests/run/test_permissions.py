"""Who may read what a run leaves: images by the user's umask, Darkroom's own folders nobody else."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from running import Batch

from pipeline.storage.user_folders import make_folder


def modes(folder: Path, *, of_folders: bool) -> set[int]:
    found = [path for path in (folder, *folder.rglob("*")) if path.is_dir() == of_folders]
    return {stat.S_IMODE(path.stat().st_mode) for path in found}


@pytest.mark.slow
def test_outputs_follow_the_umask_and_caches_are_private(make_batch: Callable[..., Batch], tmp_path: Path) -> None:
    batch = make_batch(["a red house"], "metadata.sidecar=true", out="made/here")
    batch.first = partial(os.umask, 0o027)
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "DARKROOM_HOME": str(tmp_path / "home" / "darkroom")}
    assert batch.run(env=env).code == 0
    assert modes(tmp_path / "made", of_folders=False) == {0o640}
    assert modes(tmp_path / "made", of_folders=True) == {0o750}
    roots = [root for root in (tmp_path / "cache" / "darkroom", tmp_path / "home" / "darkroom") if root.exists()]
    assert tmp_path / "cache" / "darkroom" in roots
    assert {stat.S_IMODE(root.stat().st_mode) for root in roots} == {0o700}


def test_a_folder_that_was_made_to_be_shared_stays_so(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o2775)
    make_folder(tmp_path / "shared" / "models" / "blobs", tmp_path / "shared")
    make_folder(tmp_path / "own" / "deep" / "models", tmp_path / "own" / "deep")
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o2775
    assert (tmp_path / "shared" / "models" / "blobs").stat().st_mode & 0o055
    assert stat.S_IMODE((tmp_path / "own" / "deep").stat().st_mode) == 0o700
