"""A hub of each test's own, an empty data folder, and nobody who really waits."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from hub_civitai import File, Model, Version
from hub_protocols import Samples
from hub_server import HubServer

from pipeline.hubs import downloading, query
from pipeline.hubs.answer_cache import cache_file
from pipeline.hubs.hub_settings import HubSettings
from pipeline.hubs.limits import Limits
from pipeline.hubs.retries import Patience
from pipeline.hubs.transport import Transport
from pipeline.registry.database import Registry


@pytest.fixture(autouse=True)
def at_home(home: Path) -> None:
    """All of these tests use the data folder."""


@pytest.fixture
def registry(home: Path) -> Iterator[Registry]:
    """An empty registry in that folder."""
    with Registry() as opened:
        yield opened


@pytest.fixture
def samples() -> Samples:
    """What the hubs offer: nothing, until a test adds to it."""
    return Samples()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been waited for a hub, in order."""
    seconds: list[float] = []
    patient = partial(Patience, sleep=seconds.append)
    monkeypatch.setattr(query, "_PATIENCE", patient(attempts=4, crowded_s=2.0, longest_s=10.0))
    monkeypatch.setattr(downloading, "Patience", patient)
    return seconds


@pytest.fixture
def connect(home: Path, waits: list[float]) -> Callable[..., Transport]:
    """A transport to the hubs at an address, with these settings; limits hold nobody up."""

    def transport(url: str, **settings: bool) -> Transport:
        chosen = HubSettings(huggingface_url=url, civitai_url=url, **settings)  # type: ignore[arg-type]
        return Transport(chosen, limits=Limits(home / "limits", sleep=lambda seconds: None))

    return transport


@pytest.fixture
def transport(hub: HubServer, connect: Callable[..., Transport]) -> Transport:
    """A transport to both hubs."""
    return connect(hub.url)


@pytest.fixture
def grow_old(home: Path) -> Callable[[], None]:
    """Make everything that is kept of the hubs' answers a year old."""

    def age() -> None:
        with closing(sqlite3.connect(cache_file())) as connection, connection:
            assert connection.execute("UPDATE answers SET at = '2025-01-01T00:00:00.000000Z'").rowcount

    return age


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    """A LoRA for SDXL."""
    from small_weights import write_lora  # its folder is found by what stands above

    return write_lora(tmp_path / "lora.safetensors").read_bytes()


@pytest.fixture
def ink(samples: Samples, weights: bytes) -> Version:
    """Version 102 of the model 12, a LoRA that can be had."""
    one = Version(102, [File(1002, weights, "ink.safetensors")], base_model="SDXL 1.0", words=("ink", "line art"))
    samples.models.append(Model(12, "Ink", [one], type="LORA", tags=("style",), permissions={"allowNoCredit": False}))
    return one


@pytest.fixture
def scanned(tmp_path: Path, weights: bytes, registry: Registry) -> Path:
    """A LoRA called `house-style` in a folder of the user's."""
    file = tmp_path / "loras" / "house-style.safetensors"
    file.parent.mkdir()
    file.write_bytes(weights)
    from pipeline.registry.scanning import scan

    scan(registry, file.parent)
    return file
