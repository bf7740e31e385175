"""What CivitAI says of models and versions, and which model is made of it."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hub_civitai import File, Model, Version, described_version
from hub_protocols import PICKLE, Samples
from hub_server import HubServer, html_reply, instead, json_reply

from pipeline.hubs import civitai
from pipeline.hubs.civitai import would_be_refused
from pipeline.hubs.results import Ok
from pipeline.hubs.transport import Transport
from pipeline.hubs.versions import version, version_by_hash


def test_a_version_becomes_a_model_with_one_file(ink: Version, weights: bytes, transport: Transport) -> None:
    said = version(transport, 102)
    assert isinstance(said, Ok)
    model = said.value
    assert (model.reference, model.name, model.kind, model.family) == ("civitai:102", "Ink v1.0", "lora", "sdxl")
    assert (model.version_id, model.model_id) == (102, 12)
    assert (model.trigger_words, model.tags, model.base_model) == (("ink", "line art"), ("style",), "SDXL 1.0")
    assert model.licence == "credit to the author"
    (file,) = model.files
    assert (file.sha256, file.bytes) == (hashlib.sha256(weights).hexdigest(), len(weights))


def test_the_number_of_a_model_means_its_newest_version_that_can_be_had(
    samples: Samples, weights: bytes, transport: Transport
) -> None:
    early = Version(303, [File(3, weights)], name="v3", early_access_until="2099-01-01T00:00:00.000Z")
    pickled = Version(302, [File(2, PICKLE, "x.ckpt", format="PickleTensor")], name="v2")
    samples.models.append(Model(30, "Oil", [early, pickled, Version(301, [File(1, weights)], name="v1")], type="LORA"))
    said = version(transport, 30)
    assert isinstance(said, Ok) and said.value.reference == "civitai:301"


def test_a_number_that_is_none(transport: Transport, hub: HubServer) -> None:
    said = version(transport, 999)
    assert said.kind == "not_found" and said.say().startswith("civitai:999: there is none")
    asked = len(hub.requests)
    assert version(transport, 999).kind == "not_found"
    assert len(hub.requests) == asked, "for some minutes it is not asked for again"


def test_a_file_is_found_by_its_hash(ink: Version, weights: bytes, transport: Transport, hub: HubServer) -> None:
    full = File(1003, weights + b"", "ink-fp32.safetensors", fp="fp32", sha256="cd" * 32)
    ink.files.append(full)
    said = version_by_hash(transport, "cd" * 32)
    assert isinstance(said, Ok)
    assert said.value.reference == "civitai:102" and said.value.files[0].sha256 == "cd" * 32
    assert hub.requests[0].path == f"/api/v1/model-versions/by-hash/{'CD' * 32}"
    assert version_by_hash(transport, "ef" * 32).kind == "not_found"


NONSENSE: list[Any] = [None, True, -7, 1.5, "text", [None, 3, {}], {"a": {"b": []}}, [[["x"]]]]


@pytest.mark.parametrize("field", ["modelId", "name", "baseModel", "trainedWords", "earlyAccessEndsAt", "availability",
                                   "usageControl", "model", "files", "images", "description"])  # fmt: skip
def test_fields_of_any_type_are_survived(field: str, ink: Version, hub: HubServer, transport: Transport) -> None:
    good = described_version(Model(12, "Ink", [ink], type="LORA"), ink)
    for number, nonsense in enumerate(NONSENSE, start=1):
        strange = {**good, "id": number, "modelId": number, field: nonsense}
        hub.fault(f"/api/v1/model-versions/{number}", instead(json_reply(strange)))
        about = {"id": number, "modelVersions": nonsense, "tags": nonsense, "allowCommercialUse": nonsense}
        hub.fault(f"/api/v1/models/{number}", instead(json_reply(about)))
        assert version(transport, number).say()


@pytest.mark.parametrize("answer", [html_reply(), json_reply([]), json_reply({}), json_reply({"id": "x"})])
def test_an_answer_that_is_none_counts_as_no_connection(answer: Any, hub: HubServer, transport: Transport) -> None:
    hub.fault("/api/v1/.*", instead(answer))
    assert version(transport, 102).kind == "offline"
    assert civitai.search(transport, "x", None, 5).kind == "offline"


def test_whether_a_login_is_asked_for_shows_before_anything_is_fetched(
    ink: Version, hub: HubServer, transport: Transport, weights: bytes
) -> None:
    described = version(transport, 102)
    assert isinstance(described, Ok)
    assert would_be_refused(described.value, transport) is None
    assert hub.requests[-1].header("Range") in (None, f"bytes={len(weights) - 1}-")
    ink.login = True
    assert would_be_refused(described.value, transport).kind == "needs_login"
    assert version(transport, 102).kind == "needs_login"  # from now on that is known
    ink.login, ink.early_access_until = False, "2099-01-01"
    assert would_be_refused(described.value, transport).kind == "early_access"
    hub.__exit__()
    assert would_be_refused(described.value, transport).kind == "offline"
