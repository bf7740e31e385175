"""Which families a test of something else goes over: three kinds of them in `make test`, all in `make campaign`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

KINDS = ("sdxl", "flux", "sana")
"""A U-Net with two CLIP encoders; a transformer with CLIP and T5; a linear one with a language model."""


def a_few(values: Iterable[Any], few: Iterable[Any] = KINDS) -> list[Any]:
    """Parameters of a test: `few` as they are, all others marked as a campaign's."""
    chosen = [*few]
    return [value if value in chosen else pytest.param(value, marks=pytest.mark.campaign) for value in values]
