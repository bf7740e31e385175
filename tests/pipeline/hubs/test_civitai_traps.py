"""CivitAI's nineteen traps, by their numbers in the design's reference on reliability (3.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_civitai import BROWSERS, File, Model, Version, too_many_pages
from hub_protocols import PICKLE, Samples
from hub_server import HubServer, flip, html_reply, instead, json_reply, redirect

from pipeline.errors import DownloadError
from pipeline.hubs import civitai
from pipeline.hubs.fetch_model import fetch
from pipeline.hubs.results import Ok, Outcome
from pipeline.hubs.transport import USER_AGENT, Transport
from pipeline.hubs.versions import version
from pipeline.registry.database import Registry
from pipeline.registry.records import StoredModel
from pipeline.registry.store_folders import store_folder

SEARCH = "/api/v1/models"
DOWNLOAD = r"/api/download/.*"
STORAGE = r"/storage/.*"


def fetched(number: int, transport: Transport, registry: Registry) -> Outcome[StoredModel]:
    said = version(transport, number)
    return fetch(said.value, registry, transport) if isinstance(said, Ok) else said


def stored() -> list[Path]:
    """All files of weights in the store, whole or not."""
    return sorted(path for path in (store_folder() / "blobs").rglob("*") if path.is_file())


def test_trap_1_a_429_for_deep_pages_is_not_tried_again(
    transport: Transport, hub: HubServer, waits: list[float]
) -> None:
    hub.fault(SEARCH, instead(too_many_pages()))
    said = civitai.search(transport, "ink", None, 20)
    assert said.kind == "refused" and len(hub.requests) == 1 and waits == []


def test_trap_2_a_real_429_is_waited_for_and_then_told(
    ink: Version, transport: Transport, hub: HubServer, registry: Registry, waits: list[float]
) -> None:
    busy = json_reply({"error": "unusual amount of downloading"}, 429)
    hub.fault(DOWNLOAD, instead(busy.with_headers(Retry_After="45")), times=1)
    hub.fault(DOWNLOAD, instead(busy), times=1)
    assert isinstance(fetched(102, transport, registry), Ok)
    assert waits[0] == 45 and 30 <= waits[1] <= 60 and len(waits) == 2
    hub.fault("/api/v1/model-versions/77", instead(busy.with_headers(Retry_After="3600")))
    said = version(transport, 77)
    assert said.kind == "rate_limited" and said.retry_after_s == 3600


def test_trap_3_an_overloaded_search_is_asked_again_after_two_seconds(
    ink: Version, transport: Transport, hub: HubServer, waits: list[float]
) -> None:
    hub.fault(
        SEARCH, instead(json_reply({"error": "search is overloaded"}, 503).with_headers(Retry_After="2")), times=2
    )
    said = civitai.search(transport, "ink", None, 20)
    assert isinstance(said, Ok) and [hit.reference for hit in said.value] == ["civitai:102"]
    assert waits == [2.0, 2.0]


def test_trap_4_a_404_of_storage_passes_and_is_not_remembered(
    ink: Version, transport: Transport, hub: HubServer, registry: Registry
) -> None:
    gone = instead(json_reply({"error": "File not found"}, 404).with_headers(Cache_Control="no-store"))
    hub.fault("/api/v1/model-versions/102", gone, times=1)
    hub.fault("/api/v1/models/102", gone, times=1)
    assert version(transport, 102).kind == "not_found"
    hub.fault(DOWNLOAD, gone, times=2)
    assert isinstance(fetched(102, transport, registry), Ok)


def test_trap_5_a_login_is_named_and_remembered_and_its_page_is_never_a_model(
    ink: Version, transport: Transport, hub: HubServer, registry: Registry
) -> None:
    ink.login = True
    said = fetched(102, transport, registry)
    assert said.kind == "needs_login"
    assert "asks for a login" in said.say() and "CIVITAI_TOKEN" in said.say() and "darkroom models scan" in said.say()
    found = civitai.search(transport, "ink", None, 20)
    assert isinstance(found, Ok) and found.value[0].obstacle.kind == "needs_login"
    assert stored() == []


@pytest.mark.parametrize("page", [redirect("/login?reason=download-auth"), html_reply(),
                                  json_reply({"error": "Unauthorized"})])  # fmt: skip
def test_trap_5_what_comes_in_place_of_the_file_is_not_kept(
    page: Any, ink: Version, transport: Transport, hub: HubServer, registry: Registry
) -> None:
    hub.fault(DOWNLOAD, instead(page))
    with pytest.raises(DownloadError, match="in place of the file"):
        fetched(102, transport, registry)
    assert stored() == []


def test_trap_6_the_user_agent_is_no_browsers_and_nothing_is_asked_by_head(
    ink: Version, transport: Transport, hub: HubServer, registry: Registry
) -> None:
    assert isinstance(fetched(102, transport, registry), Ok)
    assert {request.header("User-Agent") for request in hub.requests} == {USER_AGENT}
    assert not any(word in USER_AGENT.lower() for word in (*BROWSERS, "python", "urllib"))
    assert {request.method for request in hub.requests} == {"GET"}


@pytest.mark.parametrize(
    ("version_changes", "model_changes", "kind", "words"),
    [
        ({"early_access_until": "2099-01-01T00:00:00.000Z"}, {}, "early_access", "until 2099-01-01"),
        ({"usage": "Generation"}, {}, "downloads_disabled", "does not let it be downloaded"),
        ({}, {"mode": "Archived"}, "archived", "archived"),
        ({}, {"mode": "TakenDown"}, "archived", "archived"),
        ({}, {"poi": True}, "refused", "real person"),
        ({}, {"type": "Wildcards"}, "refused", "'Wildcards', which is not used here"),
        ({"files": []}, {}, "refused", "no file of weights"),
    ],
)
def test_trap_7_what_cannot_be_had_is_known_before_it_is_asked_for(
    version_changes: dict[str, Any], model_changes: dict[str, Any], kind: str, words: str,
    samples: Samples, weights: bytes, hub: HubServer, transport: Transport,
) -> None:  # fmt: skip
    one = Version(102, **{"files": [File(1, weights)], **version_changes})
    samples.models.append(Model(12, "Ink", [one], **{"type": "LORA", **model_changes}))
    said = version(transport, 102)
    assert said.kind == kind and words in said.say()
    assert not [path for path in hub.paths() if path.startswith("/api/download")]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (403, {"error": "Early Access", "deadline": "2099-01-01T00:00:00.000Z"}, "early_access"),
        (401, {"error": "Unauthorized", "message": "The creator of this asset has disabled downloads on this file"},
         "downloads_disabled"),
        (401, {"error": "Unauthorized"}, "needs_login"),
        (410, {"error": "Model archived, not available for download"}, "archived"),
        (404, {"error": "File not found"}, "not_found"),
        (403, {"error": "Forbidden"}, "offline"),
        (451, {}, "offline"),
    ],
)  # fmt: skip
def test_trap_7_what_a_download_is_refused_for_is_told_apart(
    status: int, body: dict[str, Any], kind: str, ink: Version, hub: HubServer, transport: Transport,
    registry: Registry, waits: list[float],
) -> None:  # fmt: skip
    hub.fault(DOWNLOAD, instead(json_reply(body, status)))
    assert fetched(102, transport, registry).kind == kind
    assert stored() == []
    assert len(waits) == (2 if status == 404 else 0), "only a missing file may come back"


def test_trap_8_storage_never_sees_the_token(
    ink: Version, hub: HubServer, connect: Callable[..., Transport], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIVITAI_TOKEN", "canary")
    ink.login = True
    assert isinstance(fetched(102, connect(hub.url, allow_token=True), registry), Ok)
    told = {request.path.split("/")[1] for request in hub.requests if request.header("Authorization")}
    assert told == {"api"}


def test_trap_9_no_request_carries_what_an_earlier_one_was_given(
    ink: Version, transport: Transport, hub: HubServer, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIVITAI_TOKEN", "canary")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert isinstance(fetched(102, transport, registry), Ok)
    assert len(hub.requests) == 4  # version, model, download, storage
    names = {name for request in hub.requests for name, _ in request.headers}
    assert names == {"Host", "User-Agent", "Accept", "Accept-Encoding"}
    assert b"canary" not in hub.received()


def test_traps_10_and_11_the_address_is_made_of_the_numbers_of_version_and_file(
    samples: Samples, weights: bytes, transport: Transport, hub: HubServer, registry: Registry
) -> None:
    other = File(1, PICKLE, "first.ckpt", format="PickleTensor")
    samples.models.append(Model(12, "Ink", [Version(102, [other, File(2, weights, primary=False)])], type="LORA"))
    said = fetched(102, transport, registry)
    assert isinstance(said, Ok) and said.value.path.read_bytes() == weights
    (asked,) = [request for request in hub.requests if request.path.startswith("/api/download")]
    assert (asked.path, asked.query) == ("/api/download/models/102", {"fileId": ["2"]})


@pytest.mark.parametrize(
    "name",
    ["../../../evil.safetensors", "/etc/cron.d/evil.safetensors", "a\0b.safetensors", "x" * 300 + ".safetensors",
     "C:\\evil.safetensors", "con.safetensors", "evil\u202e.safetensors", ".safetensors"],
)  # fmt: skip
def test_traps_12_and_13_a_name_is_only_shown_and_the_file_is_called_by_its_hash(
    name: str, ink: Version, weights: bytes, transport: Transport, registry: Registry, tmp_path: Path
) -> None:
    ink.files[0].name = name
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "home")}
    said = fetched(102, transport, registry)
    assert isinstance(said, Ok)
    assert said.value.path.name == f"{hashlib.sha256(weights).hexdigest()}.safetensors"
    assert stored() == [said.value.path]
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "home")} == before


def test_trap_14_a_damaged_download_is_made_once_more(
    ink: Version, weights: bytes, transport: Transport, hub: HubServer, registry: Registry
) -> None:
    hub.fault(STORAGE, flip(500), times=1)
    said = fetched(102, transport, registry)
    assert isinstance(said, Ok) and said.value.path.read_bytes() == weights


def test_trap_14_a_wrong_hash_fails_with_both_and_leaves_nothing_that_looks_whole(
    ink: Version, weights: bytes, transport: Transport, registry: Registry
) -> None:
    ink.files[0].sha256 = "ab" * 32
    with pytest.raises(DownloadError) as error:
        fetched(102, transport, registry)
    assert "ab" * 32 in str(error.value) and hashlib.sha256(weights).hexdigest() in str(error.value)
    assert not [path for path in stored() if path.suffix == ".safetensors"]


def test_traps_15_to_17_a_search_asks_for_words_number_and_kind_alone(
    ink: Version, transport: Transport, hub: HubServer
) -> None:
    assert isinstance(civitai.search(transport, "ink", None, 20), Ok)
    assert hub.requests[-1].query == {"query": ["ink"], "limit": ["20"]}
    assert isinstance(civitai.search(transport, "ink", "lora", 20), Ok)
    assert hub.requests[-1].query == {"query": ["ink"], "limit": ["20"], "types": ["LORA", "LoCon", "DoRA"]}


def test_trap_18_what_was_not_scanned_or_found_bad_is_refused(
    ink: Version, transport: Transport, registry: Registry, grow_old: Callable[[], None]
) -> None:
    for field, result in (("pickle_scan", "Pending"), ("virus_scan", "Danger")):
        setattr(ink.files[0], field, result)
        said = fetched(102, transport, registry)
        assert said.kind == "refused" and repr(result) in said.say()
        grow_old()
        setattr(ink.files[0], field, "Success")
    assert isinstance(fetched(102, transport, registry), Ok)


def test_trap_19_what_was_asked_is_not_asked_again_within_the_hour(
    ink: Version, transport: Transport, hub: HubServer, grow_old: Callable[[], None]
) -> None:
    for _ in range(3):
        assert isinstance(civitai.search(transport, "ink", None, 20), Ok)
        assert isinstance(version(transport, 102), Ok)
    assert len(hub.requests) == 3  # search, version, model
    grow_old()
    assert isinstance(version(transport, 102), Ok)
    assert len(hub.requests) == 5
