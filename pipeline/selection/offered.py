"""What this machine can choose from: the registry's models, the profiles that have weights here, the demo model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from pipeline.prompting.conventions import CLOSED
from pipeline.registry.database import Registry
from pipeline.registry.queries import list_models
from pipeline.registry.records import ModelCard, StoredModel
from pipeline.registry.stored_cards import cards
from pipeline.registry.storing import key_of
from pipeline.selection.bases import convention_of
from pipeline.selection.candidates import LoraCandidate, ModelCandidate, Offers, VaeCandidate, offers
from pipeline.selection.claims import Read
from pipeline.weights.references import EMBEDDED, SCHEMES

_BARE = re.compile(r"[\w.-]+")
_HASH_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Profile:
    """A model profile whose weights are here. `reference` is that of the weights, as the registry has it if it does.

    `family`, `licence` and `bytes` are what the profile or its weights say; the registry's word fills the gaps.
    """

    name: str
    reference: str
    family: str | None = None
    licence: str | None = None
    bytes: int = 0
    is_distilled: bool = False
    own_vae: bool = False
    sha256: str | None = None


def offers_of(registry: Registry | None, profiles: Iterable[Profile], *, read: Read) -> Offers:
    """Everything that is known here, with its cards. `read` analyses a text as a prompt. Raises `RegistryError`.

    A profile and the registry's model that it means are one candidate, under the profile's name. `registry` is None
    where there is none yet.
    """
    known: list[ModelCandidate] = []
    loras: list[LoraCandidate] = []
    vaes: list[VaeCandidate] = []
    if registry:
        hashes, texts = _hashes(registry), cards(registry)
        known = _known_models(registry, hashes, texts)
        loras = _known_loras(registry, hashes, texts)
        vaes = _known_vaes(registry, hashes)
    by_reference = {one.reference: one for one in known}
    named = [_of_profile(profile, by_reference.pop(profile.reference, None)) for profile in profiles]
    if not any(one.is_demo for one in named):
        named += [_of_profile(Profile(name, name, licence="Apache-2.0"), None) for name in EMBEDDED]
    return offers((*named, *by_reference.values()), loras, vaes, read=read)


def _of_profile(profile: Profile, stored: ModelCandidate | None) -> ModelCandidate:
    stored = stored or ModelCandidate(profile.name, profile.reference, None)
    family = profile.family or stored.family
    is_demo = profile.reference in EMBEDDED
    return ModelCandidate(
        name=profile.name,
        reference=profile.reference,
        family=family,
        convention=CLOSED if is_demo else convention_of(family, stored.name, stored.card),
        card=stored.card,
        bytes=profile.bytes or stored.bytes,
        is_distilled=profile.is_distilled,
        licence=profile.licence or stored.licence,
        source="profile",
        sha256=profile.sha256 or stored.sha256,
        own_vae=profile.own_vae,
        is_demo=is_demo,
        override=f"model={profile.name}",
    )


def _known_models(
    registry: Registry, hashes: Mapping[int, str], texts: Mapping[int, ModelCard]
) -> list[ModelCandidate]:
    models = list_models(registry, kind="checkpoint")
    names = Counter(key_of(model.name) for model in models)
    found = []
    for model in models:
        card = _card(model, texts)
        found.append(
            ModelCandidate(
                name=model.name,
                reference=model.reference,
                family=model.family,
                convention=convention_of(model.family, model.name, card),
                card=card,
                bytes=model.bytes,
                is_distilled=_is_distilled(model, card),
                licence=model.licence or card.licence or None,
                sha256=hashes.get(model.id),
                complete=model.path.exists(),
                override=_override(model, names[key_of(model.name)] == 1, hashes.get(model.id)),
            )
        )
    return found


def _known_loras(registry: Registry, hashes: Mapping[int, str], texts: Mapping[int, ModelCard]) -> list[LoraCandidate]:
    return [
        LoraCandidate(
            name=model.name,
            reference=model.reference,
            family=model.family,
            convention=convention_of(model.family, "", card),
            card=card,
            licence=model.licence or card.licence or None,
            sha256=hashes.get(model.id),
        )
        for model in list_models(registry, kind="lora")
        for card in (_card(model, texts),)
        if model.path.exists()
    ]


def _known_vaes(registry: Registry, hashes: Mapping[int, str]) -> list[VaeCandidate]:
    return [
        VaeCandidate(model.name, model.reference, model.family, hashes.get(model.id))
        for model in list_models(registry, kind="vae")
        if model.path.exists()
    ]


def _hashes(registry: Registry) -> dict[int, str]:
    """The SHA-256 of models that are one file, as far as it is known."""
    rows = registry.rows(
        "SELECT model, max(sha256) AS sha256 FROM files GROUP BY model HAVING count(*) = 1 AND max(sha256) IS NOT NULL"
    )
    return {row["model"]: row["sha256"] for row in rows}


def _card(model: StoredModel, texts: Mapping[int, ModelCard]) -> ModelCard:
    """The model's card, with what its row says where the card is silent."""
    card = texts.get(model.id, ModelCard())
    return replace(
        card,
        base_model=card.base_model or model.base_model or "",
        tags=card.tags or model.tags,
        trigger_words=card.trigger_words or model.trigger_words,
    )


_DISTILLED = re.compile(r"lightning|turbo|hyper(?!.?real)|\blcm\b|schnell|klein|\bdmd\d?\b", re.IGNORECASE)


def _is_distilled(model: StoredModel, card: ModelCard) -> bool:
    """Whether a model is one of a few steps, by its base's name, else its own."""
    return bool(_DISTILLED.search(" ".join((card.base_model, model.name)).replace("_", " ")))


def _override(model: StoredModel, is_unique: bool, sha256: str | None) -> str:
    """What a user types to take it: never a path, which would go into images."""
    source = model.name
    if not is_unique:
        if model.reference.startswith(SCHEMES):
            source = model.reference
        elif sha256:
            source = f"sha256:{sha256[:_HASH_DIGITS]}"
    if _BARE.fullmatch(source) or source.startswith(SCHEMES):
        return f"model=custom model.source={source}"
    quoted = source.replace("\\", "\\\\").replace('"', '\\"')
    return f"model=custom 'model.source=\"{quoted}\"'"
