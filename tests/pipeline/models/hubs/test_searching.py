"""A search: what is sent, what is marked, and in which order the finds come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hub_civitai import File, Model, Version
from hub_huggingface import Repository
from hub_protocols import PICKLE, Samples
from hub_server import HubServer, instead, json_reply

from pipeline.models.hubs import huggingface
from pipeline.models.hubs.finding import ensure_downloaded, search
from pipeline.models.hubs.results import Gated, Ok, Refused
from pipeline.models.hubs.transport import Transport
from pipeline.models.registry.database import Registry


def test_a_search_ranks_by_what_can_be_had(
    samples: Samples, scanned: Path, weights: bytes, registry: Registry, transport: Transport
) -> None:
    samples.repositories += [
        Repository("org/style-gated", {"a.safetensors": weights}, gated="auto", downloads=9_999),
        Repository("org/style", {"a.safetensors": weights}, downloads=5),
        Repository("org/other-style", {"a.safetensors": weights}, downloads=500),
        Repository("org/style-pickle", {"a.bin": PICKLE}, downloads=700),
    ]
    free, early = Version(1, [File(1, weights)]), Version(2, [File(2, weights)], early_access_until="2099-01-01")
    samples.models += [Model(1, "Style", [free], type="LORA", downloads=3), Model(2, "Style X", [early], type="LORA")]
    found = search("style", registry, transport)
    assert [hit.reference for hit in found.hits] == [
        str(scanned), "civitai:1", "hf:org/style", "hf:org/other-style",
        "civitai:2", "hf:org/style-gated", "hf:org/style-pickle",
    ]  # fmt: skip
    assert [hit.path for hit in found.hits[:2]] == [scanned, None]
    assert [hit.obstacle.kind for hit in found.hits if hit.obstacle] == ["early_access", "gated", "refused"]
    assert found.notes == ()
    assert [hit.reference for hit in search("style", registry, transport, kind="lora").hits] == [
        str(scanned), "civitai:1", "civitai:2",
    ]  # fmt: skip
    assert len(search("style", registry, transport, limit=3).hits) == 3


def test_what_is_here_is_found_once(ink: Version, registry: Registry, transport: Transport) -> None:
    ensure_downloaded("civitai:102", registry, transport)
    assert [hit.reference for hit in search("ink", registry, transport).hits] == ["civitai:102"]


def test_a_search_is_kept_for_days_without_a_network(
    ink: Version, registry: Registry, hub: HubServer, transport: Transport, grow_old: Callable[[], None]
) -> None:
    assert [hit.reference for hit in search("ink", registry, transport).hits] == ["civitai:102"]
    grow_old()
    hub.fault(".*", instead(json_reply({}, 503)))
    later = search("ink", registry, transport)
    assert [hit.reference for hit in later.hits] == ["civitai:102"]
    assert later.notes == ("some of this is as it was on 2025-01-01; the hub could not be asked now",)


def test_an_empty_search_asks_nobody(scanned: Path, registry: Registry, hub: HubServer, transport: Transport) -> None:
    assert [hit.name for hit in search("  ", registry, transport).hits] == ["house-style"]
    assert hub.requests == []


def test_a_search_sends_the_words_and_marks_what_cannot_be_had(
    samples: Samples, hub: HubServer, transport: Transport
) -> None:
    samples.repositories += [
        Repository("org/pixel-a", {"a.safetensors": b"x"}, tags=("lora", "license:mit"), downloads=10),
        Repository("org/pixel-b", {"b.safetensors": b"x"}, gated="auto", downloads=1000),
        Repository("org/pixel-c", {"c.bin": PICKLE}, downloads=100),
    ]
    said = huggingface.search(transport, "pixel", None, 20)
    assert isinstance(said, Ok)
    found = {hit.reference: hit for hit in said.value}
    assert found["hf:org/pixel-a"].obstacle is None and found["hf:org/pixel-a"].kind == "lora"
    assert isinstance(found["hf:org/pixel-b"].obstacle, Gated)
    assert isinstance(found["hf:org/pixel-c"].obstacle, Refused)
    (request,) = hub.requests
    assert {*request.query} == {"search", "sort", "limit", "pipeline_tag", "expand"}
    assert request.query["search"] == ["pixel"]


def test_a_search_for_a_kind_filters_by_its_tag(samples: Samples, hub: HubServer, transport: Transport) -> None:
    for kind, tag in (("lora", "lora"), ("controlnet", "controlnet"), ("embedding", "textual_inversion"),
                      ("vae", "diffusers")):  # fmt: skip
        assert isinstance(huggingface.search(transport, "x", kind, 5), Ok)  # type: ignore[arg-type]
        assert hub.requests[-1].query["filter"] == [tag]


def test_a_search_answered_with_nonsense_finds_nothing_bad(hub: HubServer, transport: Transport) -> None:
    strange = [None, 3, {"id": "../../x"}, {"id": 7}, {"id": "no-slash"}, {"id": "a/b", "siblings": "x", "tags": 3}]
    hub.fault("/api/models", instead(json_reply(strange)))
    said = huggingface.search(transport, "x", None, 20)
    assert isinstance(said, Ok) and [hit.reference for hit in said.value] == ["hf:a/b"]
