"""A file is known by its hash: here first, and on CivitAI only if that is wanted."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hub_civitai import Version
from hub_downloads import ensure_downloaded
from hub_server import HubServer

from pipeline.errors import ModelError
from pipeline.hubs.find_or_fetch import identify
from pipeline.hubs.results import Ok
from pipeline.hubs.transport import Transport
from pipeline.registry.database import Registry
from pipeline.registry.upkeep import hashed


@pytest.fixture
def file(tmp_path: Path, weights: bytes) -> Path:
    """The LoRA under a name that says nothing."""
    path = tmp_path / "untitled (3).safetensors"
    path.write_bytes(weights)
    return path


def test_nobody_is_told_the_hash_unless_that_is_wanted(
    file: Path, ink: Version, registry: Registry, hub: HubServer, transport: Transport
) -> None:
    alone = identify(file, registry)
    assert alone.here.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (alone.known, alone.hub) == (None, None) and hub.requests == []
    asked = identify(file, registry, transport)
    assert isinstance(asked.hub, Ok)
    assert (asked.hub.value.reference, asked.hub.value.trigger_words) == ("civitai:102", ("ink", "line art"))
    assert [path for path in hub.paths() if "by-hash" in path] == [
        f"/api/v1/model-versions/by-hash/{alone.here.sha256.upper()}"
    ]
    assert alone.here.sha256.encode() not in hub.received().lower().replace(
        b"by-hash/" + alone.here.sha256.encode(), b""
    )


def test_what_is_here_is_known_without_asking(
    file: Path, ink: Version, registry: Registry, hub: HubServer, transport: Transport
) -> None:
    ensure_downloaded("civitai:102", registry, transport)
    asked = len(hub.requests)
    found = identify(file, registry, transport)
    assert found.known and found.known.reference == "civitai:102" and found.hub is None
    assert len(hub.requests) == asked


def test_weights_under_other_remarks_are_the_same_weights(
    file: Path, ink: Version, tmp_path: Path, registry: Registry, transport: Transport
) -> None:
    from small_weights import write_lora

    ensure_downloaded("civitai:102", registry, transport)
    original = identify(file, registry).known
    assert original
    hashed(registry, original)
    edited = write_lora(tmp_path / "edited.safetensors", metadata={"ss_output_name": "edited by a user interface"})
    found = identify(edited, registry)
    assert found.here.sha256 != hashlib.sha256(file.read_bytes()).hexdigest()
    assert found.known and found.known.reference == "civitai:102"


def test_a_file_that_nobody_knows(file: Path, registry: Registry, transport: Transport) -> None:
    said = identify(file, registry, transport)
    assert said.known is None and said.hub.kind == "not_found"


def test_what_is_no_file_is_said(tmp_path: Path, registry: Registry) -> None:
    for path, why in ((tmp_path / "none.safetensors", "no such file"), (tmp_path, "is a folder; expected a file")):
        with pytest.raises(ModelError, match=rf"identify .*: {why}"):
            identify(path, registry)
