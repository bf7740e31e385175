"""What a card, a name and a training tag table claim of a model, and how far each claim is believed.

Everything here was written by strangers. Looks are believed less, or not at all, where a name is stuffed with them,
where a source claims many, and where tags contradict the description or what a LoRA was trained on.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.prompting.analysis import PromptAnalysis
from pipeline.registry.records import ModelCard
from pipeline.selection.features import LOOKS, SCORED, Features
from pipeline.selection.words import plain_words, spoken_name

Read = Callable[[str], PromptAnalysis]
"""Analyses a text as a prompt is analysed."""

Value = tuple[str, str]
"""An axis and one of its values."""

_MOST_TAGS = 60
_MOST_CHARACTERS = 1_200
_MOST_WORDS = 120
_EXAMPLES = 5
_SHARE_OF_EXAMPLES = 0.4
_SHARE_OF_COMMONEST_TAG = 0.2
"""A training tag that is rarer than this, by the commonest one's count, is not what was trained."""

_SAYS_NOTHING = ("style", "styles", "model", "lora", "art", "high", "quality", "image", "images", "trained", "training")


@dataclass(frozen=True, slots=True)
class Claims:
    """Trust from 0 to 1 for each value that is claimed, with the sources that said it, the most trusted first.

    `camps` are the camps of looks that it is made for, with the trust; none for a general model. `words` are those of
    the card with a share from 0 to 1: those that name and card agree on count most. `doubts` are sentences about what
    was not believed. `is_described`: it has a card that says anything, and no doubts.
    """

    trust: Mapping[Value, float] = field(default_factory=dict)
    sources: Mapping[Value, tuple[str, ...]] = field(default_factory=dict)
    camps: Mapping[str, float] = field(default_factory=dict)
    words: Mapping[str, float] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    is_described: bool = False


def claims_of(name: str, card: ModelCard, read: Read, rules: Features) -> Claims:
    """What is claimed of the model of this name, and believed."""
    said = {source: values for source, values in _by_source(name, card, read).items() if values}
    doubts: list[str] = []
    looks = {source: _looks(values) for source, values in said.items()}
    if len(looks.get("name", ())) >= rules.limits["stuffed_name"]:
        doubts.append(f"its name lists {len(looks['name'])} looks, so the name counts for nothing")
        del said["name"], looks["name"]
    for weak, strong in (("description", "training"), ("tags", "training"), ("tags", "description"),
                         ("examples", "training"), ("name", "training"), ("name", "description"),
                         ("name", "tags")):  # fmt: skip
        if _contradicts(looks.get(weak, set()), looks.get(strong, set()), rules):
            said[weak] = {value for value in said[weak] if value[0] not in LOOKS}
            looks[weak] = set()
            doubts.append(f"its {_NAMES[weak]} contradict{'' if weak in _PLURAL else 's'} its {_NAMES[strong]}")
    trust: dict[Value, float] = {}
    sources: dict[Value, list[str]] = {}
    trained = looks.get("training", set())
    for source in _NAMES:
        believed = rules.trust[source]
        thinned = believed * min(1.0, rules.limits["looks"] / max(1, len(looks.get(source, ()))))
        for value in sorted(said.get(source, ())):
            share = thinned if value[0] in LOOKS else believed
            if value[0] in LOOKS and trained and not _was_trained(value[1], trained, rules):
                share *= rules.limits["untrained"]
            trust[value] = 1 - (1 - trust.get(value, 0.0)) * (1 - share)
            sources.setdefault(value, []).append(_NAMES[source])
    most_looks = max((len(found) for found in looks.values()), default=0)
    return Claims(
        trust=trust,
        sources={value: tuple(names) for value, names in sources.items()},
        camps=_camps(trust, rules),
        words=_words(name, card) if most_looks <= 2 * rules.limits["looks"] else {},
        doubts=tuple(dict.fromkeys(doubts)),
        is_described=not doubts and bool(card.description or card.tags or card.tag_counts or card.example_prompts),
    )


def _was_trained(look: str, trained: set[str], rules: Features) -> bool:
    return look in trained or any((look, one) in rules.akin for one in trained)


_NAMES = {
    "training": "training tags",
    "tags": "tags",
    "description": "description",
    "examples": "example prompts",
    "name": "name",
}
"""The sources in the order of trust, as explanations call them."""

_PLURAL = ("training", "tags", "examples")


def _by_source(name: str, card: ModelCard, read: Read) -> dict[str, set[Value]]:
    trained = card.tag_counts[:_MOST_TAGS]
    least = max((count for _, count in trained), default=0) * _SHARE_OF_COMMONEST_TAG
    examples = Counter[Value]()
    shown = card.example_prompts[:_EXAMPLES]
    for prompt in shown:
        examples.update(_values_of(read(prompt[:_MOST_CHARACTERS])))
    called = ", ".join((spoken_name(name), card.title, *card.trigger_words[:3]))
    return {
        "training": _values(", ".join(tag.replace("_", " ") for tag, count in trained if count >= least), read),
        "tags": _values(", ".join(tag.replace("_", " ") for tag in card.tags[:_MOST_TAGS]), read),
        "description": _values(card.description, read),
        "examples": {value for value, n in examples.items() if n >= max(2, _SHARE_OF_EXAMPLES * len(shown))},
        "name": _values(called, read),
    }


def _values(text: str, read: Read) -> set[Value]:
    if not text.strip(" ,"):
        return set()
    return _values_of(read(_in_keywords(text[:_MOST_CHARACTERS])))


def _values_of(analysis: PromptAnalysis) -> set[Value]:
    return {(axis, value) for axis in SCORED for value in getattr(analysis, axis)}


_SENTENCE = re.compile(r"(?<=[.!?;:])\s+|\n")
_DENIES = re.compile(r"\b(?:no|not|nor|never|without|don't|doesn't|sin|ni|nunca)\b", re.IGNORECASE)
_BETWEEN = re.compile(
    r"\b(?:text[- ]to[- ]image|text descriptions?|image[- ]generation|transformers?|models?|modelos?|checkpoints?"
    r"|loras?|merges?|fine-?tunes?|general|base|trained|training|learned|made|makes?|works?|looks?|best"
    r"|good|great|pictures?|images?|renders? of|for|and|or|with|as|like|of|by|from|in|to|this|is|the"
    r"|an?|on(?! canvas| paper)|para|con|de|del|los|las|el|la|una?|y|o|entrenad[oa]|im[aá]genes)\b",
    re.IGNORECASE,
)
"""Words of sentences about models that a prompt would mean otherwise (a model, a general), or that link keywords."""


def _in_keywords(text: str) -> str:
    """A card's sentences as keywords with commas, as prompts have them; those that deny something stay as they are."""
    sentences = (one if _DENIES.search(one) else _BETWEEN.sub(", ", one) for one in _SENTENCE.split(text))
    return re.sub(r"(?:\s*,)+\s*", ", ", ". ".join(sentences)).strip(" ,")


def _looks(values: set[Value]) -> set[str]:
    return {value for axis, value in values if axis in LOOKS}


def _contradicts(looks: set[str], others: set[str], rules: Features) -> bool:
    """Whether both name camps, and no camp of the one is a camp of the other."""
    one = {camp for look in looks if (camp := rules.camp_of.get(look))}
    other = {camp for look in others if (camp := rules.camp_of.get(look))}
    return bool(one and other and not one & other)


_GENERAL = 3
"""A model that is trusted with looks of so many camps is made for all of them."""

_SPECIAL = 0.3
"""Trust below which a look does not make a specialist."""


def _camps(trust: Mapping[Value, float], rules: Features) -> dict[str, float]:
    camps: dict[str, float] = {}
    for (axis, value), share in trust.items():
        if axis in LOOKS and share >= _SPECIAL and (camp := rules.camp_of.get(value)):
            camps[camp] = max(camps.get(camp, 0.0), share)
    return {} if len(camps) >= _GENERAL else camps


def _words(name: str, card: ModelCard) -> dict[str, float]:
    """Words of the card, 0.4 each; 0.9 for those that also stand in name, title or triggers."""
    called = {*plain_words(spoken_name(name)), *plain_words(name), *plain_words(card.title)}
    for trigger in card.trigger_words[:20]:
        called.update(plain_words(trigger, 200))
    text = (
        " ".join(tag for tag, _ in card.tag_counts[:_MOST_TAGS]),
        " ".join(card.tags[:_MOST_TAGS]),
        card.description,
        " ".join(card.example_prompts[:_EXAMPLES]),
    )
    found: dict[str, float] = {}
    for part in text:
        for word in plain_words(part, _MOST_CHARACTERS):
            if len(word) > 2 and not word.isdecimal() and word not in _SAYS_NOTHING:
                found[word] = 0.9 if word in called else 0.4
                if len(found) >= _MOST_WORDS:
                    return found
    return found
