"""How long a server is waited for before it is asked again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pipeline.hubs.retries import Patience, retry_after_s

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Thu, 01 Jan 2026 14:00:30 +0200"}, 30.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "9" * 5_000}, None),
        ({"retry-after": "Mon, 99 Foo 99999 99:99:99 GMT"}, None),
        ({"ratelimit": '"api";r=0;t=55'}, 55.0),
        ({"ratelimit": '"api";r=0;t=x'}, None),
        ({"retry-after": "3", "ratelimit": '"api";r=0;t=55'}, 3.0),
    ],
)
def test_what_servers_say_of_waiting(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOW) == seconds


def test_waits_double_and_the_last_failure_is_final() -> None:
    waits: list[float] = []
    patience = Patience(sleep=waits.append, chance=lambda: 1.0)
    assert [patience.wait(failures) for failures in range(1, 6)] == [True, True, True, True, False]
    assert waits == [1.0, 2.0, 4.0, 8.0]


def test_chance_takes_up_to_half_of_a_wait_away() -> None:
    waits: list[float] = []
    Patience(sleep=waits.append, chance=lambda: 0.0).wait(2)
    assert waits == [1.0]


def test_a_crowded_server_is_left_alone_for_longer_but_not_for_ever() -> None:
    waits: list[float] = []
    patience = Patience(attempts=8, sleep=waits.append, chance=lambda: 1.0)
    for failures in range(1, 8):
        assert patience.wait(failures, crowded=True)
    assert waits == [30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0]


def test_who_asks_for_too_long_a_wait_is_not_waited_for() -> None:
    waits: list[float] = []
    patience = Patience(sleep=waits.append)
    assert not patience.wait(1, asked_s=601.0)
    assert patience.wait(1, asked_s=2.0)
    assert waits == [2.0]
