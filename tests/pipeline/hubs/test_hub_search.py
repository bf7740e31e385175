"""A search: what is sent, what is marked, and in which order the finds come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hub_civitai import File, Model, Version, described_model
from hub_downloads import ensure_downloaded
from hub_huggingface import Repository
from hub_protocols import PICKLE, Samples
from hub_server import HubServer, Reply, instead, json_reply

from pipeline.hubs import civitai, huggingface
from pipeline.hubs.find_or_fetch import find_or_download, search
from pipeline.hubs.hub_search import ASKED
from pipeline.hubs.results import Ok
from pipeline.hubs.transport import Transport
from pipeline.registry.database import Registry


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
    assert later.notes == ("some of these results are as of 2025-01-01; the hub could not be asked now",)


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
    assert found["hf:org/pixel-b"].obstacle.kind == "gated"
    assert found["hf:org/pixel-c"].obstacle.kind == "refused"
    (request,) = hub.requests
    assert {*request.query} == {"search", "sort", "limit", "pipeline_tag", "expand"}
    assert request.query["search"] == ["pixel"]


def test_a_search_for_a_kind_filters_by_its_tag(samples: Samples, hub: HubServer, transport: Transport) -> None:
    for kind, tag in (("lora", "lora"), ("controlnet", "controlnet"), ("embedding", "textual_inversion"),
                      ("vae", "diffusers")):  # fmt: skip
        assert isinstance(huggingface.search(transport, "x", kind, 5), Ok)  # type: ignore[arg-type]
        assert hub.requests[-1].query["filter"] == [tag]


def test_a_search_answered_with_nonsense_finds_nothing_bad(hub: HubServer, transport: Transport) -> None:
    strange = [
        None,
        3,
        {"id": "../../x"},
        {"id": 7},
        {"id": "a b"},
        {"id": "a/b/c"},
        {"id": "a/b", "siblings": "x", "tags": 3},
    ]
    hub.fault("/api/models", instead(json_reply(strange)))
    said = huggingface.search(transport, "x", None, 20)
    assert isinstance(said, Ok) and [hit.reference for hit in said.value] == ["hf:a/b"]


def test_words_that_hang_together_are_sent_apart_as_well(
    samples: Samples, weights: bytes, registry: Registry, hub: HubServer, transport: Transport
) -> None:
    version = Version(7, [File(7, weights)], name="v2")
    samples.models.append(Model(7, "Harbour Lights", [version], type="LORA"))
    for written in ("harbour-lights", "harbour_lights", "Harbour lights"):
        assert [hit.reference for hit in search(written, registry, transport).hits] == ["civitai:7"]
        assert find_or_download(written, registry, transport).reference == "civitai:7"
    asked = [request.query["query"][0] for request in hub.requests if request.path == "/api/v1/models"]
    assert asked == ["harbour-lights", "harbour lights", "harbour_lights", "Harbour lights"]


def test_all_pages_of_both_hubs_are_fetched_where_all_is_asked_for(
    samples: Samples, weights: bytes, registry: Registry, hub: HubServer, transport: Transport
) -> None:
    """The link to Hugging Face's next page names its own address, and a mirror has another: it is not followed."""
    for number in range(1, 251):
        samples.repositories.append(Repository(f"org/style-{number}", {"a.safetensors": weights}))
        samples.models.append(Model(number, f"Style {number}", [Version(number, [File(number, weights)])], "LORA"))
    assert len({hit.reference for hit in search("style", registry, transport, limit=None, asked=None).hits}) == 500
    pages = [request.query.get("cursor") for request in hub.requests]
    assert sorted(pages, key=str) == [None, None, ["100"], ["100"], ["200"], ["200"]]
    assert len(search("style", registry, transport, limit=None, asked=120).hits) == 240
    assert len(search("style", registry, transport, limit=None).hits) == 2 * ASKED


def test_pages_without_end_are_cut_and_that_is_said(
    samples: Samples, weights: bytes, hub: HubServer, connect: Callable[..., Transport]
) -> None:
    told: list[str] = []
    one = [{"id": "org/style", "siblings": [{"rfilename": "a.safetensors"}]}]
    endless = json_reply(one).with_headers(Link='<https://huggingface.co/api/models?cursor=again>; rel="next"')
    hub.route("GET", "/api/models", lambda request: endless)
    transport = connect(hub.url)
    transport.say = told.append
    assert isinstance(huggingface.search(transport, "style", None, None), Ok)
    assert len(hub.requests) == 2, "a page that was asked for is not asked for again"
    assert told == ["Hugging Face: has more than 20; more words narrow it down"]


def test_a_page_that_fails_leaves_those_before_it(
    samples: Samples, weights: bytes, registry: Registry, hub: HubServer, transport: Transport
) -> None:
    samples.models += [
        Model(number, f"Style {number}", [Version(number, [File(number, weights)])], "LORA") for number in range(1, 151)
    ]
    found = hub.requests
    hub.route("GET", "/api/v1/models", lambda request: json_reply({}, 400) if "cursor" in request.query else page())

    def page() -> Reply:
        return json_reply({"items": [described_model(one) for one in samples.models], "metadata": {"nextCursor": "x"}})

    said = civitai.search(transport, "style", None, None)
    assert isinstance(said, Ok) and len(said.value) == 150 and len(found) == 2
