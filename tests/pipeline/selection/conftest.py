"""The made registry as what can be chosen, indexed once."""

from __future__ import annotations

import pytest

from benchmarks.made_registry import Made, made_registry
from pipeline.prompting.rules import analyse
from pipeline.selection.candidates import Offers


@pytest.fixture(scope="session")
def made() -> Made:
    """200 models and 2,000 LoRAs, lies among them."""
    return made_registry()


@pytest.fixture(scope="session")
def made_offers(made: Made) -> Offers:
    """The same, indexed."""
    return made.offers(analyse)
