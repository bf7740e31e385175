"""How long a download will take, by the last one."""

from __future__ import annotations

from pipeline.hubs.download_progress import ASSUMED_BYTES_PER_S, Speedometer, speed

MIB = 2**20


def told(*readings: tuple[float, int]) -> Speedometer:
    """One that was told these bytes at these times."""
    times = iter([at for at, _ in readings])
    one = Speedometer(None, clock=lambda: next(times))
    for _, here in readings:
        one("a", here, None)
    return one


def test_nothing_is_known_at_first() -> None:
    assert speed() == (ASSUMED_BYTES_PER_S, False)


def test_what_was_here_before_counts_for_nothing() -> None:
    told((100.0, 50 * MIB), (101.0, 51 * MIB), (104.0, 58 * MIB)).remember()
    assert speed() == (2.0 * MIB, True)


def test_a_download_that_began_anew_is_measured_from_there() -> None:
    told((0.0, 0), (1.0, 90 * MIB), (2.0, 0), (4.0, 8 * MIB)).remember()
    assert speed() == (4.0 * MIB, True)


def test_small_ones_tell_nothing() -> None:
    told((0.0, 0), (0.001, 1000)).remember()
    told().remember()
    told((0.0, MIB), (0.0, 3 * MIB)).remember()  # a clock that stood still
    assert speed()[1] is False


def test_progress_is_passed_on() -> None:
    seen: list[tuple[str, int, int | None]] = []
    Speedometer(lambda *said: seen.append(said))("a", 1, 2)
    assert seen == [("a", 1, 2)]
