"""Processes really killed, at random moments and at named points: nothing finished is lost, nothing is made twice."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from running import Batch, Run

SLOW_STEPS = "sampling.steps=40"
"""Makes a tiny image take long enough to be killed in the middle."""


@pytest.mark.slow
def test_child_then_parent_then_both_are_killed(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(["a red house", "a blue boat"], "seeds={start: 0, count: 8}", "batch_size=1", SLOW_STEPS)

    run = batch.start()
    known = batch.wait_for_images(run, 2)
    run.new_child().kill()
    run.new_child()  # the parent starts another one, which goes on
    known |= batch.wait_for_images(run, len(known) + 3)
    assert "the worker was lost (killed by SIGKILL); starting a new one" in run.err

    child = run.child()
    assert child is not None
    run.process.kill()
    child.wait(60)  # without its parent a worker finishes what it is at, and seals
    assert run.wait().code == -9
    assert batch.journals() == []
    known |= batch.acknowledged()
    assert 5 <= len(known) < 16
    assert [row for row in batch.rows() if row["attempt"] > 1 and row["status"] != "done"] == []

    again = batch.start()
    known |= batch.wait_for_images(again, len(known) + 2)
    again.kill_both()
    known |= batch.acknowledged()

    last = batch.run()
    assert last.code == 0, last.err
    batch.assert_whole(16, since=known)
    assert batch.summaries()[-1]["skipped"] >= len(known)


# Where the process dies, at which pass, and how the first command ends. During a seal the parent, which then seals in
# the worker's place, dies as well. Each worker passes its point often enough to finish an image before: a job at which
# three of them died would be quarantined.
POINTS = [
    ("before_encode", 2, 0),
    ("before_denoise", 3, 0),
    ("after_intent", 3, 0),
    ("after_rename", 3, 0),
    ("after_commit", 3, 0),
    ("during_seal", 1, -9),
    ("after_part_rename", 1, 0),
]


@pytest.mark.slow
@pytest.mark.parametrize(("point", "count", "code"), POINTS)
def test_killed_at_a_named_point(make_batch: Callable[..., Batch], point: str, count: int, code: int) -> None:
    batch = make_batch(["a red house", "a blue boat"], "seeds={start: 0, count: 3}", "batch_size=2")

    first = batch.run(env={"DARKROOM_CRASH_AT": f"{point}:{count}"})
    assert first.code == code, first.err
    known = batch.acknowledged()
    if code == 0:
        batch.assert_whole(6)
        assert batch.summaries()[-1]["workers_lost"] >= 1

    assert batch.run().code == 0
    batch.assert_whole(6, since=known)


@pytest.mark.slow
def test_image_with_its_name_but_without_its_row_is_kept(make_batch: Callable[..., Batch]) -> None:
    """Both die between an image's final name and its row; recovery adopts the image instead of making another."""
    batch = make_batch(["a red house"])
    run = batch.start(env={"DARKROOM_CRASH_AT": "after_rename"})
    run.until(lambda: batch.images())
    run.kill_both()
    assert batch.acknowledged() == {} and len(batch.images()) == 1

    again = batch.run()
    assert again.code == 0 and "nothing to make" in again.out
    batch.assert_whole(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "kills"), [(1, 5), *(pytest.param(seed, 10, marks=pytest.mark.campaign) for seed in range(1, 13))]
)
def test_killed_at_random(make_batch: Callable[..., Batch], seed: int, kills: int) -> None:
    """Worker, parent or both, at any moment; an orphaned worker may still be sealing when the next run starts."""
    chance = random.Random(seed)
    batch = make_batch(["a red house", "a blue boat"], "batch_size=2")
    count = 6 * kills

    def start(*overrides: str) -> Run:
        return batch.start(f"seeds={{start: 0, count: {count}}}", *overrides)

    known: dict[str, dict[str, object]] = {}
    killed: list[str] = []
    run = start()
    while len(killed) < kills:
        loads = run.err.count("loaded in")
        deadline = time.monotonic() + (60 if chance.random() < 0.75 else chance.uniform(0, 3))
        while run.process.poll() is None and run.err.count("loaded in") == loads and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 1))
        if run.process.poll() is not None:  # all made, or one job was hit three times
            assert run.process.returncode in (0, 3), run.err
            count += 40
            run = start("retry_failed=true")
            continue
        known |= batch.acknowledged()
        victim = chance.choice(["worker", "worker", "parent", "both"])
        if victim == "worker":
            child = run.child()
            if child is None:
                continue
            child.kill()
        elif victim == "parent":
            run.process.kill()
            run.process.wait()
        else:
            run.kill_both()
        killed.append(victim)
        known |= batch.acknowledged()
        if victim != "worker":
            run = start()
    run.wait()
    last = start("retry_failed=true").wait()
    assert last.code == 0, last.err
    leftovers = [path.name for path in batch.output_dir.rglob(".*.tmp")]
    print(f"{killed}: {2 * count} images, {len(known)} known at a kill, {len(leftovers)} temporary files left")
    batch.assert_whole(2 * count, since=known)
    assert_readable(batch, 2 * count)


def assert_readable(batch: Batch, done: int) -> None:
    """By readers that know nothing of us, with whatever the kills have left lying around."""
    import duckdb
    import pandas

    parts = batch.output_dir / "manifest" / "parts"
    frame = pandas.read_parquet(parts)
    assert (frame["status"] == "done").sum() == done
    counted = duckdb.sql(f"SELECT count(*) FROM '{parts}/*.parquet' WHERE status = 'done'").fetchall()
    assert counted == [(done,)]
