"""Model cards: base model, trigger words, recommended settings, licence, the author's text.

It is asked once and kept with its date; from then on it is there without a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.hubs import civitai, huggingface
from pipeline.hubs.civitai_protocol import CivitaiModel, ModelVersion, title
from pipeline.hubs.hub_settings import HubSettings
from pipeline.hubs.remote_models import Hub
from pipeline.hubs.results import Ok, Outcome, Problem
from pipeline.hubs.transport import Transport
from pipeline.hubs.version_files import KINDS
from pipeline.registry.card_fields import description, prompts
from pipeline.registry.hints import Hints
from pipeline.registry.records import ModelCard, StoredKind, StoredModel
from pipeline.registry.settings_in_text import settings_in, settings_of
from pipeline.weights.families import family_of_base
from pipeline.weights.references import Reference, parse


@dataclass(frozen=True, slots=True)
class Card:
    """A model's card. All texts are plain: one printable line each, except `text`, which has line breaks.

    `settings` are the author's recommendations by our names (`steps`, `guidance_scale`, `sampler`, `clip_skip`,
    `weight`), each a number, a range or a word, as the author puts it. `downloads` and `thumbs_up` are the hub's
    counts, None where it gives none. `at` is when the hub said all this (UTC, ISO).
    `obstacle` is what keeps the model from being had, as far as that is known before it is fetched.
    """

    hub: Hub
    reference: str
    name: str
    at: str
    kind: StoredKind | None = None
    family: str | None = None
    base_model: str | None = None
    licence: str | None = None
    trigger_words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    example_prompts: tuple[str, ...] = ()
    downloads: int | None = None
    thumbs_up: int | None = None
    obstacle: Problem | None = None


def card(transport: Transport, reference: Reference, *, anew: bool = False) -> Outcome[Card]:
    """The card of a repository on Hugging Face or of a version on CivitAI; from the cache, unless `anew`.

    If the hub cannot be asked anew, what is kept is given, as stale.
    """
    fresh_s = 0.0 if anew else None
    if reference.scheme == "hf":
        return _of_repository(transport, reference, fresh_s)
    if reference.scheme == "civitai" and reference.number:
        return _of_version(transport, reference.number, fresh_s)
    return Problem("not_found", reference.text, "has no card, since it names no model of a hub")


def card_of(model: StoredModel) -> Reference | None:
    """The reference under which the card of a model on this machine is cached; None if no hub is known to have it."""
    if model.source != "local":
        return parse(model.reference)
    return parse(f"civitai:{model.version_id}") if model.version_id else None


def kept_card(settings: HubSettings, reference: Reference) -> Card | None:
    """The cached card, however old; no hub is asked."""
    said = card(Transport(settings, asks=False), reference)
    return said.value if isinstance(said, Ok) else None


def hints_of(card: Card) -> Hints:
    """The card as the registry keeps it beside a model."""
    return Hints(
        ModelCard(
            title=card.name,
            description=description(card.text),
            base_model=card.base_model or "",
            licence=card.licence or "",
            tags=card.tags,
            trigger_words=card.trigger_words,
            example_prompts=card.example_prompts,
            downloads=card.downloads,
            thumbs_up=card.thumbs_up,
        ),
        card.settings,
    )


def _of_repository(transport: Transport, reference: Reference, fresh_s: float | None) -> Outcome[Card]:
    name = reference.repository or ""
    said = huggingface.info(transport, name, reference.revision or "main", fresh_s)
    if not isinstance(said, Ok):
        return said
    value = said.value
    written = huggingface.readme(transport, name, value.sha)
    text = written.value if isinstance(written, Ok) else ""
    found = Card(
        hub="huggingface",
        reference=f"hf:{name}@{value.sha}",
        name=name.rpartition("/")[2],
        at=said.at,
        kind=value.kind,
        family=value.family,
        base_model=value.base_model,
        licence=value.licence,
        trigger_words=value.trigger_words,
        tags=value.free_tags,
        settings=settings_in(text),
        text=text,
        example_prompts=prompts(one.text for one in value.card.widget),
        downloads=value.downloads or None,
        obstacle=huggingface.obstacle(transport, value, f"hf:{name}"),
    )
    return Ok(found, said.at, said.stale)


def card_by_hash(transport: Transport, sha256: str) -> Outcome[Card]:
    """The card of the CivitAI version that has a file with this hash; sends the hash to the hub."""
    said = civitai.version_by_hash(transport, sha256)
    return _of_answer(transport, said, None) if isinstance(said, Ok) else said


def _of_version(transport: Transport, number: int, fresh_s: float | None) -> Outcome[Card]:
    said = civitai.version(transport, number, fresh_s)
    if said.kind == "not_found":
        of = civitai.model(transport, number, fresh_s)
        if not isinstance(of, Ok) or not of.value.versions:
            return of if not isinstance(of, Ok) else said
        said = civitai.version(transport, of.value.versions[0].id, fresh_s)
    return _of_answer(transport, said, fresh_s) if isinstance(said, Ok) else said


def _of_answer(transport: Transport, said: Ok[ModelVersion], fresh_s: float | None) -> Outcome[Card]:
    value = said.value
    about = civitai.model(transport, value.model_id, fresh_s) if value.model_id else None
    more = about.value if isinstance(about, Ok) else CivitaiModel()
    text = "\n\n".join(part for part in (value.text, more.text) if part)
    found = Card(
        hub="civitai",
        reference=f"civitai:{value.id}",
        name=title(value.model.name, value.name),
        at=said.at,
        kind=KINDS.get(value.model.type),
        family=family_of_base(value.base_model),
        base_model=value.base_model or None,
        licence=more.permissions or None,
        trigger_words=value.words,
        tags=more.tags,
        settings={**settings_of(value.pictures), **settings_in(text)},
        text=text,
        example_prompts=prompts(one.prompt for one in value.pictures),
        downloads=value.downloads or None,
        thumbs_up=value.thumbs_up or None,
        obstacle=civitai.obstacle(transport, value, value.model, f"civitai:{value.id}"),
    )
    return Ok(found, said.at, said.stale)
