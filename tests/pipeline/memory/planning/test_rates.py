"""What is known of a card's pace: published, then measured, and forgotten again."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.memory.planning.rates import PUBLISHED, SLOW, MeasuredRates, published
from pipeline.system.device import Device


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("NVIDIA H100 80GB HBM3", PUBLISHED["H100"]),
        ("NVIDIA GeForce RTX 4090", PUBLISHED["4090"]),
        ("NVIDIA L20", PUBLISHED["L20"]),
        ("a card of the year 2031", SLOW),
        (None, SLOW),
    ],
)
def test_cards_are_known_by_their_names(name: str | None, rates: object) -> None:
    assert published(Device("cuda", name, (8, 0))) == rates


def test_what_was_measured_twice_counts_instead_of_what_was_published(tmp_path: Path) -> None:
    card, path = Device("cuda", "NVIDIA L20", (8, 9)), tmp_path / "memory.sqlite"
    MeasuredRates(path).note("NVIDIA L20", "copy", 22e9)
    assert MeasuredRates(path).of(card) == PUBLISHED["L20"], "one may have been disturbed"
    for rate in (24e9, 25e9, float("nan"), 0.0):
        MeasuredRates(path).note("NVIDIA L20", "copy", rate)
    measured = MeasuredRates(path).of(card)
    assert (measured.copy, measured.compute) == (24e9, PUBLISHED["L20"].compute)
    assert MeasuredRates(path).of(Device("cuda", "NVIDIA H100", (9, 0))) == PUBLISHED["H100"]
    for _ in range(5):
        MeasuredRates(path).note("NVIDIA L20", "copy", 12e9)
    assert MeasuredRates(path).of(card).copy == 12e9, "the last ones count"
    path.write_bytes(b"no database")
    assert MeasuredRates(path).of(card) == PUBLISHED["L20"]
