"""Tiny models, loaded."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from held_models import Load

from pipeline.loading.load import load
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.pool import Pool
from pipeline.registry.model_settings import identify
from pipeline.request import MemorySettings


@pytest.fixture
def loaded(tiny: Callable[[str], Path]) -> Iterator[Load]:
    """Loads a tiny model of a family onto the CPU."""

    def load_family(family: str, memory: MemorySettings | None = None, pool: Pool | None = None) -> LoadedModel:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load(identify(str(tiny(family)))[0], memory or MemorySettings(), "cpu", pool=pool)

    yield load_family
    gc.collect()
