"""Sizes and durations in words."""

from __future__ import annotations

import pytest

from pipeline.system.units import duration_text, size_text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (99.94 * 2**20, "99.9 MiB"),
        (99.96 * 2**20, "100 MiB"),
        (596.3 * 2**20, "596 MiB"),
        (1023.4 * 2**20, "1023 MiB"),
        (1023.6 * 2**20, "1.0 GiB"),
        (3.4 * 2**30, "3.4 GiB"),
        (2048 * 2**30, "2.0 TiB"),
    ],
)
def test_sizes_are_in_units_of_1024(size_bytes: float, text: str) -> None:
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (1.26, "1.3 s"),
        (7, "7 s"),
        (9.97, "10 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (9000, "2.5 h"),
    ],
)
def test_durations_have_one_unit(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
