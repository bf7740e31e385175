"""A named model is found: here, on Hugging Face, on CivitAI, in this order."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_civitai import Version
from hub_downloads import ensure_downloaded
from hub_huggingface import Repository
from hub_protocols import Samples
from hub_server import HubServer, Reply, Request, instead, json_reply, redirect

from pipeline.errors import ModelError
from pipeline.hubs.find_or_fetch import (
    DownloadPlan,
    find_or_download,
    plan_by_name,
    plan_download,
    search,
)
from pipeline.hubs.results import Ok
from pipeline.hubs.transport import Transport
from pipeline.registry.database import Registry
from pipeline.registry.resolve import resolve

NOBODY = "http://127.0.0.1:9"
"""An address at which nothing answers: what a machine without a network sees of a mirror."""


def test_what_is_here_is_taken_and_nobody_is_asked(
    scanned: Path, registry: Registry, hub: HubServer, transport: Transport
) -> None:
    found = find_or_download("house style", registry, transport, kind="lora")
    assert (found.path, found.downloaded) == (scanned, False)
    assert [attempt.where for attempt in found.tried] == ["this machine"]
    assert find_or_download(str(scanned), registry, transport).path == scanned
    assert find_or_download("demo", registry, transport).path.name == "demo"
    assert hub.requests == []


def test_hugging_face_comes_before_civitai(
    samples: Samples, ink: Version, weights: bytes, registry: Registry, hub: HubServer, transport: Transport
) -> None:
    samples.repositories.append(Repository("org/Ink", {"ink.safetensors": weights}, tags=("lora",)))
    found = find_or_download("ink", registry, transport)
    assert found.reference == f"hf:org/Ink@{samples.repositories[0].commit}/ink.safetensors" and found.downloaded
    assert [(one.where, one.said) for one in found.tried] == [("this machine", "not here"), ("Hugging Face", "found")]
    assert not [path for path in hub.paths() if path.startswith("/api/v1")], "CivitAI is not told the name"


def test_civitai_is_asked_when_hugging_face_has_it_not(ink: Version, registry: Registry, transport: Transport) -> None:
    found = find_or_download("Ink", registry, transport, kind="lora")
    assert found.reference == "civitai:102"
    assert [(one.where, one.said) for one in found.tried] == [
        ("this machine", "not here"), ("Hugging Face", "no model has this name"), ("CivitAI", "found"),
    ]  # fmt: skip


def test_a_gated_model_leaves_the_word_to_the_next(
    samples: Samples, ink: Version, weights: bytes, registry: Registry, transport: Transport
) -> None:
    samples.repositories.append(Repository("org/ink", {"ink.safetensors": weights}, gated="auto"))
    found = find_or_download("ink", registry, transport)
    assert found.reference == "civitai:102"
    assert "accept conditions" in found.tried[1].said


def test_a_hub_that_fails_leaves_the_word_to_the_next(
    samples: Samples, ink: Version, weights: bytes, registry: Registry, hub: HubServer, transport: Transport
) -> None:
    samples.repositories.append(Repository("org/ink", {"ink.safetensors": b"not what it was" + weights}))
    found = find_or_download("ink", registry, transport)
    assert found.reference == "civitai:102" and "Hugging Face" in found.tried[1].where
    assert "ink.safetensors" in found.tried[1].said


def test_a_name_that_several_have_is_not_decided_by_us(
    samples: Samples, ink: Version, weights: bytes, registry: Registry, transport: Transport
) -> None:
    for owner in ("one", "two"):
        samples.repositories.append(Repository(f"{owner}/ink", {"ink.safetensors": weights}))
    with pytest.raises(ModelError, match="names 2 models on Hugging Face; say which: hf:one/ink, hf:two/ink"):
        find_or_download("ink", registry, transport)


def test_a_name_that_only_begins_so_is_a_candidate_and_no_model(
    samples: Samples, ink: Version, weights: bytes, registry: Registry, hub: HubServer, transport: Transport
) -> None:
    samples.repositories.append(Repository("org/ink-and-wash", {"ink.safetensors": weights}))
    ink.login = True
    with pytest.raises(ModelError) as error:
        find_or_download("ink", registry, transport)
    assert "no model has this name; like it are hf:org/ink-and-wash" in str(error.value)
    assert "CivitAI: civitai:102: its author asks for a login" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_name_with_an_owner_is_a_repository(
    samples: Samples, weights: bytes, registry: Registry, hub: HubServer, transport: Transport
) -> None:
    samples.repositories.append(Repository("org/ink", {"ink.safetensors": weights}))
    assert find_or_download("org/ink", registry, transport).downloaded
    assert not [path for path in hub.paths() if path.startswith("/api/v1")]


def test_a_hash_is_looked_up_on_civitai(ink: Version, registry: Registry, transport: Transport) -> None:
    digest = ink.files[0].described(102)["hashes"]["SHA256"].lower()
    found = find_or_download(f"sha256:{digest}", registry, transport)
    assert found.reference == "civitai:102" and found.path.stem == digest
    with pytest.raises(ModelError, match="all 64 digits"):
        find_or_download("sha256:abcdef012345", registry, transport)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("hf:org/none", "hf:org/none: there is none, or it is private; look for it with: darkroom models search"),
        ("civitai:7", "civitai:7: there is none"),
        ("./none.safetensors", "no such folder or file"),
        ("some name", "`darkroom models list` shows no such name"),
        ("https://huggingface.co/org/x", "web addresses are not taken; write hf:org/x"),
    ],
)
def test_what_is_nowhere_is_said_in_one_line(
    reference: str, said: str, registry: Registry, hub: HubServer, transport: Transport
) -> None:
    with pytest.raises(ModelError) as error:
        ensure_downloaded(reference, registry, transport)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert "/api/models" not in hub.paths() and "/api/v1/models" not in hub.paths(), "an exact call never searches"


def test_a_plan_is_a_path_for_what_is_here_and_a_list_for_what_is_not(
    scanned: Path, ink: Version, registry: Registry, transport: Transport
) -> None:
    here = plan_download("house-style", transport, noun="lora")
    assert isinstance(here, Ok) and here.value == scanned
    away = plan_download("civitai:102", transport)
    assert isinstance(away, Ok) and isinstance(away.value, DownloadPlan)
    assert away.value.bytes == len(ink.files[0].content) and away.value.model.name == "Ink v1.0"
    assert plan_download("civitai:7", transport).kind == "not_found"


@pytest.mark.parametrize(
    ("noun", "is_taken"), [("controlnet", False), ("embedding", False), ("lora", True), ("model", True)]
)
def test_what_is_surely_something_else_is_not_fetched(
    noun: str, is_taken: bool, ink: Version, registry: Registry, hub: HubServer, transport: Transport
) -> None:
    if is_taken:
        assert ensure_downloaded("civitai:102", registry, transport, noun=noun).exists()
        return
    with pytest.raises(ModelError, match=f"civitai:102: is of the kind lora, and {noun} was requested"):
        ensure_downloaded("civitai:102", registry, transport, noun=noun)
    assert not [path for path in hub.paths() if path.startswith("/api/download")]


def test_without_a_network_everything_answers_with_what_is_here(
    scanned: Path, registry: Registry, connect: Callable[..., Transport], waits: list[float]
) -> None:
    alone = connect(NOBODY)
    found = search("style", registry, alone)
    assert [hit.reference for hit in found.hits] == [str(scanned)]
    assert len(found.notes) == 2 and all("what is on this machine can still be used" in note for note in found.notes)
    assert find_or_download("house-style", registry, alone).path == scanned
    with pytest.raises(ModelError, match=r"Hugging Face: .*; CivitAI: "):
        find_or_download("ink", registry, alone)
    with pytest.raises(ModelError, match=r"hf:org/ink: .*the connection failed"):
        ensure_downloaded("hf:org/ink", registry, alone)
    assert waits == [], "nobody waits for a hub that is not there"


@pytest.mark.parametrize("named", ["hf:org/ink", "ink", "hf:org/ink@main"])
def test_refresh_asks_for_the_newest_commit_of_what_is_here(
    named: str, samples: Samples, weights: bytes, registry: Registry, hub: HubServer, transport: Transport
) -> None:
    repository = Repository("org/ink", {"ink.safetensors": weights}, tags=("lora",))
    samples.repositories.append(repository)
    first = find_or_download("hf:org/ink", registry, transport)
    end = 8 + struct.unpack("<Q", weights[:8])[0]
    header = json.dumps(json.loads(weights[8:end]) | {"__metadata__": {"remark": "newer"}}).encode()
    newer = struct.pack("<Q", len(header)) + header + weights[end:]
    commit = repository.replace({"ink.safetensors": newer})
    asked = len(hub.requests)
    assert find_or_download(named, registry, transport).path == first.path and len(hub.requests) == asked
    planned = plan_by_name(named, transport, refresh=True)
    assert planned.plan and planned.plan.model.revision == commit
    second = find_or_download(named, registry, transport, refresh=True)
    assert second.reference == f"hf:org/ink@{commit}/ink.safetensors" and second.path.read_bytes() == newer
    assert resolve("hf:org/ink", "lora") == second.path, "from now on this is main"
    assert resolve(first.reference, "lora") == first.path
    again = find_or_download(named, registry, transport, refresh=True)
    assert (again.path, again.reference) == (second.path, second.reference)


def test_refresh_asks_civitai_too_for_what_is_not_here(ink: Version, hub: HubServer, transport: Transport) -> None:
    first = plan_by_name("civitai:102", transport).plan
    asked = hub.paths()
    kept = plan_by_name("civitai:102", transport).plan
    assert first and kept and kept.model == first.model and hub.paths() == asked
    ink.base_model = "Illustrious"
    planned = plan_by_name("civitai:102", transport, refresh=True).plan
    assert planned and planned.model.base_model == "Illustrious" != first.model.base_model
    assert hub.paths() == [*asked, *asked]


def test_refresh_says_what_it_cannot_ask_for(
    samples: Samples, ink: Version, weights: bytes, scanned: Path, registry: Registry, hub: HubServer,
    transport: Transport,
) -> None:  # fmt: skip
    samples.repositories.append(Repository("org/lines", {"lines.safetensors": weights}, tags=("lora",)))
    here = find_or_download("hf:org/lines", registry, transport)
    find_or_download("civitai:102", registry, transport)
    for named, said in (
        (here.reference, "is a commit, which never changes"),
        ("civitai:102", "--refresh works only for downloads from Hugging Face"),
        ("house-style", "--refresh works only for downloads from Hugging Face"),
    ):
        with pytest.raises(ModelError, match=said):
            find_or_download(named, registry, transport, refresh=True)
    hub.fault(".*", instead(json_reply({}, 503)))
    with pytest.raises(ModelError, match="the hub could not be asked now"):
        find_or_download("hf:org/lines", registry, transport, refresh=True)


def test_a_repository_without_owner_can_be_named(
    samples: Samples, weights: bytes, registry: Registry, hub: HubServer, transport: Transport
) -> None:
    """As the public hub has them: they are now somebody's, and the old name leads there."""
    samples.repositories.append(Repository("somebody/old-ink", {"ink.safetensors": weights}, tags=("lora",)))

    def moved(request: Request) -> Reply:
        return redirect(request.target.replace("/old-ink", "/somebody/old-ink"), 307)

    hub.route("GET", "(/api/models)?/old-ink/.*", moved)
    commit = samples.repositories[0].commit
    found = find_or_download("hf:old-ink", registry, transport)
    assert found.reference == f"hf:old-ink@{commit}/ink.safetensors"
    for named in ("hf:old-ink", "hf:old-ink@main", f"hf:old-ink@{commit}/ink.safetensors", "old-ink"):
        assert find_or_download(named, registry, transport).path == found.path


def test_of_one_content_under_two_references_the_one_that_was_named_is_said(
    samples: Samples, ink: Version, weights: bytes, registry: Registry, transport: Transport
) -> None:
    samples.repositories.append(Repository("org/lines", {"lines.safetensors": weights}, tags=("lora",)))
    on_hugging_face = f"hf:org/lines@{samples.repositories[0].commit}/lines.safetensors"
    for _ in range(2):  # fetched, then here
        assert find_or_download("hf:org/lines", registry, transport).reference == on_hugging_face
        assert find_or_download("civitai:102", registry, transport).reference == "civitai:102"
        assert find_or_download("civitai:12", registry, transport).reference == "civitai:102"


@pytest.mark.parametrize("is_planned", [False, True])
def test_a_refusal_names_the_hub_and_the_model_once(
    is_planned: bool, samples: Samples, ink: Version, registry: Registry, hub: HubServer, transport: Transport
) -> None:
    samples.repositories.append(Repository("org/page", {"a.safetensors": b"<!DOCTYPE html>" * 100}, tags=("lora",)))
    ink.early_access_until = "2099-01-01"
    cases = [("civitai:102", "CivitAI: is in paid early access until 2099-01-01; take another one")]
    if not is_planned:
        cases.append(("hf:org/page", "Hugging Face: a.safetensors: sends a web page"))
    for named, said in cases:
        with pytest.raises(ModelError) as error:
            if is_planned:
                plan_by_name(named, transport)
            else:
                find_or_download(named, registry, transport)
        assert str(error.value).startswith(f"model '{named}': cannot be downloaded. this machine: not here; {said}")
        assert str(error.value).count(named) == 1 and str(error.value).count(said.partition(":")[0]) == 1
