"""Tiny models, freshly loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.models.loading import LoadedModel, load
from pipeline.models.profile import identify
from pipeline.request import DType, MemorySettings

sys.path.insert(0, str(Path(__file__).parent))  # adapter_files, direct_calls


@pytest.fixture(scope="session")
def load_tiny(tiny: Callable[[str], Path]) -> Callable[..., LoadedModel]:
    """A tiny model of a family, freshly loaded."""

    def loaded(family: str, dtype: DType = "float32", techniques: tuple[str, ...] = ()) -> LoadedModel:
        settings, _ = identify(str(tiny(family)))
        return load(settings, MemorySettings(dtype=dtype, techniques=techniques), "cpu")

    return loaded


@pytest.fixture
def sd(load_tiny: Callable[..., LoadedModel]) -> LoadedModel:
    return load_tiny("sd15")
