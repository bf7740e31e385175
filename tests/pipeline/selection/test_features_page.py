"""docs/choosing-reference.md says how cards are believed and LoRAs are chosen as it is."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.selection.features import features

PAGE = (Path(__file__).parents[3] / "docs" / "choosing-reference.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## How a candidate is scored")[2].partition("\n## ")[0]
ROW = re.compile(r"^\| (\w+) \| ([\d.]+) \|", re.MULTILINE)


def test_the_page_has_the_trust_of_every_source() -> None:
    shown = [(name, float(value)) for name, value in ROW.findall(SECTION)]
    assert sorted(shown) == sorted(features().trust.items())


def test_the_page_says_the_limits() -> None:
    rules = features()
    assert f"counts with {rules.limits['by_lora']:g} where" in SECTION
    assert f"together at most {rules.limits['weight_sum']:g}" in SECTION
    assert f"one reason of more than {rules.limits['least_reason']:g} point" in SECTION
    assert f"{rules.lora_weights['character']:g} (character)" in SECTION
    assert f"{rules.lora_weights['detail']:g} (detail)" in SECTION
