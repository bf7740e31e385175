"""The manifest is deleted while images are made: noticed at the next row, and the way back is told."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable

import pytest
from forked import program
from running import Batch

pytestmark = pytest.mark.slow


def test_a_manifest_deleted_under_a_run_is_noticed_and_can_be_rebuilt(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(("a red house",), "seeds={start: 0, count: 400}", "bundle_images=1")
    run = batch.start()
    batch.wait_for_images(run, 2)
    shutil.rmtree(batch.output_dir / "manifest")
    ended = run.wait()
    made = len(batch.images())
    assert ended.code == 4 and 2 <= made < 400, ended
    assert f"{batch.output_dir / 'manifest'}: was deleted while images were made" in ended.out
    assert "Traceback" not in ended.err
    (way_on,) = (line.partition("; ")[2] for line in ended.out.splitlines() if "lists the images again" in line)
    words = shlex.split(way_on.partition(" lists")[0])
    assert program(*words, cwd=batch.folder, folder=batch.folder).code == 0
    assert len(batch.acknowledged()) == made
