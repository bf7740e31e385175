"""Cards: asked once, kept with their date, free of markup."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hub_civitai import Model, Version
from hub_huggingface import Repository
from hub_protocols import Samples
from hub_server import HubServer, instead, json_reply

from pipeline.hubs.answer_cache import cache_file
from pipeline.hubs.cards import Card, card
from pipeline.hubs.results import Ok
from pipeline.hubs.transport import Transport
from pipeline.weights.references import parse

README = b"""---
license: openrail++
---
# Ink drawings

<script>steal()</script>Use **25-30 steps**, CFG scale: 7, LoRA weight: 0.8.
[Try it](https://evil.example/?q=1) <img src=x onerror=alert(1)>
\x1b]0;owned\x07
"""


@pytest.fixture
def repository(samples: Samples) -> Repository:
    """A LoRA with a card in which somebody has put a script."""
    one = Repository(
        "org/ink",
        {"ink.safetensors": b"x", "README.md": README},
        tags=("lora", "license:openrail++", "base_model:org/sdxl", "base_model:adapter:org/sdxl", "art<script>"),
        card={"license": "openrail++", "base_model": "org/sdxl", "instance_prompt": "ink \x1b[31mdrawing"},
    )
    samples.repositories.append(one)
    return one


def age_days(found: Card) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(found.at)).total_seconds() / 86_400


def of(reference: str, transport: Transport, *, anew: bool = False) -> Card:
    said = card(transport, parse(reference), anew=anew)
    assert isinstance(said, Ok), said
    return said.value


def test_the_card_of_a_repository(repository: Repository, transport: Transport) -> None:
    found = of("hf:org/ink", transport)
    assert (found.reference, found.name, found.kind) == (f"hf:org/ink@{repository.commit}", "ink", "lora")
    assert (found.base_model, found.licence) == ("org/sdxl", "openrail++")
    assert found.trigger_words == ("ink [31mdrawing",)
    assert found.settings == {"steps": "25 to 30", "guidance_scale": "7", "weight": "0.8"}
    assert found.text.startswith("# Ink drawings\n") and "Try it" in found.text
    for harm in ("steal", "<", "evil.example", "onerror", "\x1b", "\x07"):
        assert harm not in found.text
    assert 0 <= age_days(found) < 1


def test_the_card_of_a_version(samples: Samples, ink: Version, transport: Transport) -> None:
    ink.description = "<p>Clip skip: 2</p><script>alert(1)</script>"
    ink.images = ({"meta": {"steps": 28, "cfgScale": 5, "sampler": "Euler a", "prompt": "secret"}}, {"meta": None})
    samples.models[0].description = "<h1>Ink</h1>&lt;img src=x onerror=alert(1)&gt; sampler: DPM++ 2M"
    found = of("civitai:102", transport)
    assert (found.name, found.kind, found.family) == ("Ink v1.0", "lora", "sdxl")
    assert (found.trigger_words, found.licence) == (("ink", "line art"), "credit to the author")
    assert found.settings == {"steps": "28", "guidance_scale": "5", "sampler": "DPM++ 2M", "clip_skip": "2"}
    assert "alert" not in found.text and "onerror" not in found.text
    assert of("civitai:12", transport) == found, "the number of the model means its newest version"


def test_a_card_can_be_read_of_what_cannot_be_had(samples: Samples, ink: Version, transport: Transport) -> None:
    samples.models[0].mode = "Archived"
    assert of("civitai:102", transport).name == "Ink v1.0"
    samples.repositories.append(Repository("org/shut", {"a.safetensors": b"x"}, gated="auto"))
    assert of("hf:org/shut", transport).text == "", "a gated repository does not give its README either"


def test_what_is_kept_is_taken_at_any_age_until_it_is_asked_for_anew(
    repository: Repository, ink: Version, hub: HubServer, transport: Transport, grow_old: Callable[[], None]
) -> None:
    first = [of("hf:org/ink", transport), of("civitai:102", transport)]
    asked = len(hub.requests)
    grow_old()
    old = [of("hf:org/ink", transport), of("civitai:102", transport)]
    assert len(hub.requests) == asked
    assert [one.text for one in old] == [one.text for one in first] and all(age_days(one) > 300 for one in old)
    ink.words = ("new",)
    assert of("civitai:102", transport, anew=True).trigger_words == ("new",)
    assert age_days(of("civitai:102", transport)) < 1


def test_without_a_network_a_card_is_there_with_its_age(
    repository: Repository, hub: HubServer, transport: Transport, grow_old: Callable[[], None]
) -> None:
    before = of("hf:org/ink", transport)
    grow_old()
    hub.fault(".*", instead(json_reply({}, 503)))
    said = card(transport, parse("hf:org/ink"), anew=True)
    assert isinstance(said, Ok) and said.stale and said.value.text == before.text
    assert "as of 2025-01-01" in said.say()
    assert card(transport, parse("hf:org/other")).kind == "offline"


def test_what_has_no_card(transport: Transport, hub: HubServer) -> None:
    for reference in ("sha256:" + "a" * 64, "./file.safetensors", "name"):
        assert card(transport, parse(reference)).kind == "not_found"
    assert hub.requests == []
    assert card(transport, parse("hf:org/none")).kind == "not_found"
    assert card(transport, parse("civitai:5")).kind == "not_found"


def test_markup_is_not_even_kept(repository: Repository, samples: Samples, ink: Version, transport: Transport) -> None:
    samples.models.append(Model(9, "x", [], description="<script>alert(1)</script>"))
    of("hf:org/ink", transport)
    of("civitai:102", transport)
    assert b"steal()" not in cache_file().read_bytes() and b"onerror" not in cache_file().read_bytes()
