"""A worker is replaced when it has grown, has made enough, or has become slow; and for no other reason."""

from __future__ import annotations

from jobs.engines.recycling import RECENT_BUNDLES, SETTLED_BUNDLES, Recycling, RecyclingLimits


def reasons(
    limits: RecyclingLimits, bundles: list[tuple[str, float, int]], images: int = 4, kind: str = "512"
) -> list[str | None]:
    """What is said after each bundle of (model, seconds per image, resident bytes)."""
    watch = Recycling(limits)
    return [watch.reason(model, (model, kind), images, seconds, rss) for model, seconds, rss in bundles]


def test_a_steady_worker_is_kept() -> None:
    limits = RecyclingLimits(images=None, growth_bytes=10**9, slowdown=2.0)
    assert set(reasons(limits, [("a", 1.0, 5 * 10**9)] * 100)) == {None}


def test_after_so_many_images() -> None:
    found = reasons(RecyclingLimits(images=10), [("a", 1.0, 0)] * 3)
    assert found[:2] == [None, None] and found[2] is not None and "12 images" in found[2]


def test_growth_counts_from_where_the_model_had_settled() -> None:
    rss = [1, 3, 4, 4.5, 5.1]  # loading and warming up is no growth
    found = reasons(RecyclingLimits(growth_bytes=10**9), [("a", 1.0, int(size * 10**9)) for size in rss])
    assert found[:4] == [None] * 4 and found[4] is not None and "1.0 GiB" in found[4]


def test_another_larger_model_is_no_growth() -> None:
    bundles = [("a", 1.0, 2 * 10**9)] * SETTLED_BUNDLES + [("b", 1.0, 9 * 10**9)] * 20
    assert set(reasons(RecyclingLimits(growth_bytes=10**9), bundles)) == {None}


def test_slower_than_its_own_median_for_long_and_not_only_once() -> None:
    steady, slow = [("a", 1.0, 0)] * 20, ("a", 3.0, 0)
    once = reasons(RecyclingLimits(slowdown=2.0), [*steady, slow, *steady])
    assert set(once) == {None}
    lasting = reasons(RecyclingLimits(slowdown=2.0), [*steady, *[slow] * RECENT_BUNDLES])
    assert lasting[:-1] == [None] * (len(lasting) - 1)
    assert lasting[-1] is not None and "3.0 times slower" in lasting[-1]


def test_longer_jobs_are_not_slow_ones() -> None:
    watch = Recycling(RecyclingLimits(slowdown=2.0))
    found = [watch.reason("a", steps, 1, seconds, 0) for steps, seconds in [(4, 1.0)] * 20 + [(40, 10.0)] * 20]
    assert set(found) == {None}
