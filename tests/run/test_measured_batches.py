"""Runs leave behind how long their batches took, and later ones take the size that was fastest."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import Batch


def sizes_of(batch: Batch) -> Counter[int]:
    """Pictures by the size of their batch."""
    return Counter(row["batch_size"] for row in batch.rows() if row["status"] == "done")


@pytest.mark.slow
def test_a_run_measures_and_the_next_one_takes_what_was_fastest(
    make_batch: Callable[..., Batch], tmp_path: Path
) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    file = tmp_path / "cache" / "darkroom" / "memory.sqlite"

    def made(out: str, count: int) -> Batch:
        seeds = f"seeds={{start: 0, count: {count}}}"
        batch = make_batch(["a red house in hills at day"], "memory.max_batch_size=4", seeds, model="demo", out=out)
        finished = batch.run(env=env)
        assert finished.code == 0, finished.err
        return batch

    never_made = make_batch(["a red house"], "memory.max_batch_size=4", "dry_run=json", model="demo", out="none")

    def planned(*overrides: str) -> dict[str, Any]:
        (memory,) = json.loads(never_made.run(*overrides, env=env).out)["memory"]
        return dict(memory)

    first = made("first", 24)
    assert sizes_of(first) == {4: 16, 2: 8}, "two for three batches, to measure them, and two pictures were left"
    measured = {int(size): seconds for size, seconds in planned()["seconds_per_image"].items()}
    assert {*measured} == {2, 4}
    longest = max(row["seconds"] for row in first.rows())
    assert all(0 < seconds < longest for seconds in measured.values()), "encoding and warming up are not in it"

    with sqlite3.connect(file) as connection:
        assert len(connection.execute("SELECT DISTINCT kind FROM paces").fetchall()) == 1
        connection.execute("UPDATE paces SET denoise = 0.1 * batch")
    assert planned()["batch_size"] == 2
    assert planned("memory.quality=exact")["batch_size"] == 4
    assert sizes_of(made("second", 4)) == {2: 4}

    file.write_bytes(b"no database" * 1000)
    assert planned()["batch_size"] == 4 and sizes_of(made("third", 4)) == {4: 4}
