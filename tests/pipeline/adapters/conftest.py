"""Tiny models, freshly loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.loading.load import load
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.registry.model_settings import identify
from pipeline.request import DType, MemorySettings


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
