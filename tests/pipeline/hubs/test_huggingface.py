"""What Hugging Face says of repositories, and which model is made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hub_huggingface import Repository
from hub_protocols import PICKLE, Samples, pipeline_repository
from hub_server import HubServer, Reply, html_reply, instead, json_reply

from pipeline.hubs import huggingface
from pipeline.hubs.repositories import repository
from pipeline.hubs.results import Ok
from pipeline.hubs.transport import Transport
from pipeline.weights.references import parse

FILES = {
    "model_index.json": b'{"_class_name": "StableDiffusionXLPipeline", "unet": ["diffusers", "UNet2DConditionModel"], '
    b'"scheduler": ["diffusers", "EulerDiscreteScheduler"]}',
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": b"full weights",
    "unet/diffusion_pytorch_model.fp16.safetensors": b"half",
    "scheduler/scheduler_config.json": b"{}",
}
INFO = r"/api/models/org/.*"


@pytest.fixture
def sdxl(samples: Samples) -> Repository:
    samples.repositories.append(pipeline_repository("org/sdxl", FILES, "StableDiffusionXLPipeline"))
    return samples.repositories[0]


def test_a_repository_becomes_a_pinned_model_of_the_files_that_are_needed(
    sdxl: Repository, hub: HubServer, transport: Transport
) -> None:
    said = repository(transport, parse("hf:org/sdxl"))
    assert isinstance(said, Ok)
    model = said.value
    assert model.reference == f"hf:org/sdxl@{sdxl.commit}"
    assert {file.name for file in model.files} == {
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "scheduler/scheduler_config.json",
    }
    assert all(f"/resolve/{sdxl.commit}/" in file.url for file in model.files)
    assert (model.kind, model.family, model.licence, model.folder) == ("checkpoint", "sdxl", "mit", True)
    assert (model.revision, model.branches) == (sdxl.commit, ("main",))
    assert [file.bytes for file in model.files] == [len(FILES[file.name]) for file in model.files]
    assert not [path for path in hub.paths() if path.startswith("/cdn/")], "no weights are fetched for this"


def test_a_branch_that_moves_is_another_model_and_the_old_commit_stays(
    sdxl: Repository, transport: Transport, grow_old: Callable[[], None]
) -> None:
    before = repository(transport, parse("hf:org/sdxl"))
    old = sdxl.commit
    sdxl.replace({**FILES, "unet/diffusion_pytorch_model.fp16.safetensors": b"better"})
    kept = repository(transport, parse("hf:org/sdxl"))
    assert isinstance(before, Ok) and isinstance(kept, Ok)
    assert kept.value.reference == before.value.reference, "an hour long the branch is not asked for again"
    grow_old()
    now = repository(transport, parse("hf:org/sdxl"))
    pinned = repository(transport, parse(f"hf:org/sdxl@{old}"))
    assert isinstance(now, Ok) and isinstance(pinned, Ok)
    assert now.value.reference == f"hf:org/sdxl@{sdxl.commit}"
    assert pinned.value.reference == before.value.reference and pinned.value.branches == ()


@pytest.mark.parametrize(
    ("changes", "reference", "kind", "words"),
    [
        ({"gated": "auto"}, "hf:org/one", "gated", "accept conditions"),
        ({"gated": "manual"}, "hf:org/one", "gated", "HF_TOKEN"),
        ({"private": True}, "hf:org/one", "not_found", "there is none, or it is private"),
        ({}, "hf:org/other", "not_found", "there is none, or it is private"),
        ({"disabled": True}, "hf:org/one", "downloads_disabled", "does not let it be downloaded"),
        ({}, "hf:org/one@v2", "not_found", "no such revision"),
        (
            {},
            "hf:org/one/other.safetensors",
            "refused",
            "has no file 'other.safetensors'; it has hf:org/one/a.safetensors",
        ),
        ({"files": {"model.ckpt": PICKLE}}, "hf:org/one", "refused", "a pickle"),
        ({"files": {"README.md": b"x"}}, "hf:org/one", "refused", "holds no weights"),
    ],
)
def test_what_cannot_be_had_is_said_by_its_kind(
    changes: dict[str, Any], reference: str, kind: str, words: str, samples: Samples, transport: Transport
) -> None:
    samples.repositories.append(Repository("org/one", **{"files": {"a.safetensors": b"x"}, **changes}))
    said = repository(transport, parse(reference))
    assert said.kind == kind
    assert reference in said.say() and words in said.say()


def test_a_token_opens_what_is_gated(
    samples: Samples, hub: HubServer, connect: Callable[..., Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples.repositories.append(Repository("org/one", {"a.safetensors": b"x"}, gated="auto"))
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    assert repository(connect(hub.url), parse("hf:org/one")).kind == "gated"
    assert b"hf_canary" not in hub.received()
    assert isinstance(repository(connect(hub.url, allow_token=True), parse("hf:org/one")), Ok)


def test_names_that_must_not_become_paths_are_left_out_and_said(samples: Samples, transport: Transport) -> None:
    hostile = [
        {"rfilename": name, "size": 5, "lfs": {"sha256": "a" * 64, "size": 5}}
        for name in (
            "../../.bashrc.safetensors",
            "/etc/cron.d/x.safetensors",
            "a\0.safetensors",
            "unet\\x.safetensors",
            ["x"],
        )
    ]
    samples.repositories.append(Repository("org/one", {"lora.safetensors": b"x"}, extra=tuple(hostile)))
    said = repository(transport, parse("hf:org/one"))
    assert isinstance(said, Ok)
    assert [file.name for file in said.value.files] == ["lora.safetensors"]
    assert said.value.notes == ("5 of its files have names that are refused; they are left out",)


def test_a_file_without_a_hash_is_refused(samples: Samples, transport: Transport) -> None:
    unsure = ({"rfilename": "b.safetensors", "size": 5},)
    samples.repositories.append(Repository("org/one", {"README.md": b"x"}, extra=unsure))
    said = repository(transport, parse("hf:org/one"))
    assert said.kind == "refused" and "no hash by which b.safetensors could be checked" in said.say()


def test_one_file_of_many_is_named_in_the_reference(samples: Samples, transport: Transport) -> None:
    files = {"sub/ink.safetensors": b"ink", "sub/oil.safetensors": b"oil"}
    samples.repositories.append(
        Repository("org/many", files, tags=("lora",), card={"instance_prompt": "ink drawing", "base_model": "org/sdxl"})
    )
    said = repository(transport, parse("hf:org/many/sub/ink.safetensors"))
    assert isinstance(said, Ok)
    model = said.value
    assert model.reference == f"hf:org/many@{samples.repositories[0].commit}/sub/ink.safetensors"
    assert (model.name, model.kind, model.folder) == ("ink", "lora", False)
    assert (model.trigger_words, model.base_model) == (("ink drawing",), "org/sdxl")


def test_a_component_in_a_folder_becomes_a_folder_of_its_own(samples: Samples, transport: Transport) -> None:
    files = {"models/image_encoder/config.json": b"{}", "models/image_encoder/model.safetensors": b"x", "a.bin": PICKLE}
    samples.repositories.append(Repository("org/ip", files))
    said = repository(transport, parse("hf:org/ip/models/image_encoder"))
    assert isinstance(said, Ok) and said.value.folder
    assert [file.name for file in said.value.files] == ["config.json", "model.safetensors"]
    assert said.value.files[1].url.endswith("/models/image_encoder/model.safetensors")


@pytest.mark.parametrize(
    "answer",
    [
        html_reply(),
        json_reply([1, 2]),
        json_reply(None),
        Reply(200, b"{" * 100_000),
        Reply(200, b"[" * 100_000),
        Reply(200, b"\xff\xfe\x00"),
        Reply(200, b""),
    ],
)
def test_an_answer_that_is_none_counts_as_no_connection(answer: Reply, hub: HubServer, transport: Transport) -> None:
    hub.fault(INFO, instead(answer))
    said = repository(transport, parse("hf:org/one"))
    assert said.kind == "offline" and "something else than was requested" in said.say()


@pytest.mark.parametrize("commit", [None, "main", "../../x", 7, "a" * 39])
def test_a_hub_that_does_not_say_the_commit_is_not_relied_on(commit: Any, hub: HubServer, transport: Transport) -> None:
    hub.fault(INFO, instead(json_reply({"id": "org/one", "sha": commit, "siblings": []})))
    said = repository(transport, parse("hf:org/one"))
    assert said.kind == "refused" and "which commit" in said.say()


def test_another_commit_than_the_one_asked_for_is_refused(
    sdxl: Repository, hub: HubServer, transport: Transport
) -> None:
    asked = "b" * 40
    hub.fault(INFO, instead(json_reply({"id": "org/sdxl", "sha": sdxl.commit, "siblings": []})))
    assert repository(transport, parse(f"hf:org/sdxl@{asked}")).kind == "refused"


@pytest.mark.parametrize("field", ["gated", "disabled", "downloads", "tags", "cardData", "siblings", "pipeline_tag"])
def test_fields_of_any_type_are_survived(field: str, hub: HubServer, transport: Transport) -> None:
    good = {"id": "org/one", "sha": "c" * 40, "siblings": [{"rfilename": "a.gguf", "lfs": {"sha256": "d" * 64}}]}
    for nonsense in (None, True, 7, -1.5, "text", [None, 3, {}], {"a": {"b": []}}, [[["x"]]]):
        hub.fault(INFO, instead(json_reply({**good, field: nonsense})), times=1)
        assert repository(transport, parse(f"hf:org/one{len(hub.requests)}")).say()
    assert len(hub.requests) == 8


def test_an_overloaded_hub_is_asked_again_as_it_wishes(
    sdxl: Repository, hub: HubServer, transport: Transport, waits: list[float]
) -> None:
    hub.fault(INFO, instead(json_reply({}, 503).with_headers(Retry_After="2")), times=1)
    hub.fault(INFO, instead(json_reply({}, 429).with_headers(RateLimit='"api";r=0;t=7')), times=1)
    assert isinstance(repository(transport, parse("hf:org/sdxl")), Ok)
    assert waits == [2.0, 7.0]


def test_a_hub_that_wants_a_long_rest_gets_it(hub: HubServer, transport: Transport, waits: list[float]) -> None:
    hub.fault(INFO, instead(json_reply({}, 429).with_headers(Retry_After="240")))
    said = repository(transport, parse("hf:org/one"))
    assert said.kind == "rate_limited" and said.retry_after_s == 240
    assert "try again in 4 min" in said.say() and waits == []


def test_a_hub_out_of_order_is_no_connection(hub: HubServer, transport: Transport, waits: list[float]) -> None:
    hub.fault(INFO, instead(html_reply("down", 500)))
    said = repository(transport, parse("hf:org/one"))
    assert said.kind == "offline" and "(500)" in said.say() and len(waits) == 3


def test_what_was_said_once_is_there_without_a_network(
    sdxl: Repository, hub: HubServer, transport: Transport, grow_old: Callable[[], None]
) -> None:
    assert isinstance(repository(transport, parse("hf:org/sdxl")), Ok)
    asked = len(hub.requests)
    fresh = repository(transport, parse("hf:org/sdxl"))
    assert isinstance(fresh, Ok) and not fresh.stale and len(hub.requests) == asked
    hub.fault(".*", instead(html_reply("down", 503)))
    grow_old()
    old = huggingface.info(transport, "org/sdxl")
    assert isinstance(old, Ok) and old.stale and old.at.startswith("2025-01-01")
    assert isinstance(repository(transport, parse("hf:org/sdxl")), Ok)
    assert "could not be asked now" in old.say()
