"""LoRAs that prompts name by `<lora:NAME:0.8>`, for models that are named: each is applied and leaves the text."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import lru_cache

from pipeline.adapters.specs import LoraSpec
from pipeline.errors import DarkroomError
from pipeline.prompting.lora_tags import lora_tags, without_tags
from pipeline.registry.database import Registry
from pipeline.registry.queries import list_models
from pipeline.registry.records import StoredModel
from pipeline.registry.store_folders import registry_file
from pipeline.registry.stored_cards import cards

DEFAULT_WEIGHT = 1.0
"""Of a tag without one (A1111, `extensions-builtin/Lora/extra_networks_lora.py`), where the author advises none."""

_Stored = tuple[StoredModel, float]
"""A LoRA, and the weight that its author advises."""


class TaggedLoras:
    """Looks up the names of tags in the registry; each name once, and with one warning where it cannot be applied."""

    def __init__(self, family: str | None) -> None:
        """`family` is that of the model; None for one of which that is not known, which takes any LoRA."""
        self._family = family
        self.warnings: dict[str, None] = {}
        self._found = lru_cache(maxsize=1024)(self._find)
        self._stored = lru_cache(maxsize=1)(_stored_loras)

    def applied(self, text: str) -> tuple[str, tuple[LoraSpec, ...]]:
        """The text without its tags, and the LoRAs of those that are known and fit; of the others a warning is kept."""
        tags = lora_tags(text)
        self.warnings.update(dict.fromkeys(tag.fault for tag in tags if tag.fault))
        loras = (
            LoraSpec(found.reference, weight if tag.weight is None else tag.weight, found.name)
            for tag in tags
            if not tag.fault and (known := self._found(tag.name))
            for found, weight in (known,)
        )
        return without_tags(text, tags), tuple(loras)

    def _find(self, name: str) -> _Stored | None:
        known = self._stored()
        named = [one for one in known if _key(one[0].name) == _key(name)]
        fitting = [one for one in named if self._family in (None, one[0].family)]
        if fitting:
            return fitting[0]
        usable = {_key(one.name): one.name for one, _ in known if self._family in (None, one.family)}
        near = [usable[key] for key in difflib.get_close_matches(_key(name), usable, 3, 0.5)]
        hint = f"; like it: {', '.join(near)}" if near else "; `darkroom models list --kind lora` shows those here"
        why = f"is for {named[0][0].family or 'other models'}" if named else "is not known here"
        self.warnings[f"<lora:{name}> {why}, so it is not applied{hint}"] = None
        return None


def _stored_loras() -> Sequence[_Stored]:
    if not registry_file().exists():
        return ()
    try:
        with Registry() as registry:
            advised = {number: card.weight for number, card in cards(registry).items()}
            here = (one for one in list_models(registry, kind="lora") if one.path.exists())
            return [(one, advised.get(one.id) or DEFAULT_WEIGHT) for one in here]
    except DarkroomError:
        return ()


def _key(name: str) -> str:
    """A name without what spellings differ in."""
    return "".join(re.findall(r"[^\W_]+", name.casefold().removesuffix(".safetensors")))
