"""Workers that are replaced on purpose, and weights that vanish while they wait."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from running import Batch

LINES = ["a red house", "a blue boat", "a tree", "a hill"]


@pytest.mark.slow
def test_a_worker_is_replaced_between_bundles_and_nothing_is_lost_or_made_twice(
    make_batch: Callable[..., Batch],
) -> None:
    batch = make_batch(LINES, "batch_size=1", "bundle_images=2", "engine.recycle_images=2")
    finished = batch.run()
    assert finished.code == 0 and "a fresh worker takes over (2 images made)" in finished.err
    (summary,) = batch.summaries()
    assert (summary["made"], summary["workers_lost"]) == (4, 0)
    assert summary["workers_recycled"] >= 1
    assert {row["attempt"] for row in batch.rows()} == {1}
    batch.assert_whole(4)


@pytest.mark.slow
def test_a_model_that_vanishes_while_it_waits_fails_its_own_jobs_alone(
    make_batch: Callable[..., Batch], tiny_sd: Path, tmp_path: Path
) -> None:
    """The second model is gone before its files are read ahead and loaded."""
    second = shutil.copytree(tiny_sd, tmp_path / "second")
    # Another byte makes it another model; else both would be one by content.
    (second / "unet" / "config.json").write_text((second / "unet" / "config.json").read_text() + "\n")
    batch = make_batch(
        LINES[:2], "batch_size=1", "bundle_images=1", "sampling.steps=60", f"model.source={tiny_sd},{second}"
    )
    run = batch.start("-m")
    batch.wait_for_images(run, 1)
    shutil.rmtree(second)
    finished = run.wait()
    assert finished.code == 3, finished.err
    (summary,) = batch.summaries()
    assert (summary["made"], summary["failed"]) == (2, 2)
    assert "Traceback" not in finished.err and "second" in finished.err
