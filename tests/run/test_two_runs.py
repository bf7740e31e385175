"""Two runs at once on one output folder."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from running import Batch


@pytest.mark.slow
def test_two_runs_share_the_work(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(
        ["a red house", "a blue boat"], "seeds={start: 0, count: 12}", "batch_size=2", "sampling.steps=10"
    )
    one, two = batch.start(), batch.start()
    assert (one.wait().code, two.wait().code) == (0, 0), one.err + two.err
    batch.assert_whole(24)
    summaries = batch.summaries()
    assert len(summaries) == 2 and sum(summary["made"] for summary in summaries) == 24
    assert [summary["made"] + summary["skipped"] for summary in summaries] == [24, 24]
    assert {row["attempt"] for row in batch.rows()} == {1}


@pytest.mark.slow
def test_the_other_run_makes_what_a_killed_one_leaves(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(
        ["a red house", "a blue boat"], "seeds={start: 0, count: 10}", "batch_size=2", "sampling.steps=30"
    )
    one, two = batch.start(), batch.start()
    known = batch.wait_for_images(one, 2)
    one.kill_both()
    known |= batch.acknowledged()
    assert two.wait().code == 0, two.err
    batch.run()  # the dead one's journal may still be there; whoever comes next seals it
    batch.assert_whole(20, since=known)
