"""What can be chosen: models, LoRAs and VAEs with what is claimed of them, indexed so that choosing is fast."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import chain
from typing import Literal, TypeVar

from pipeline.registry.records import ModelCard
from pipeline.selection.claims import Claims, Read, Value, claims_of
from pipeline.selection.features import Features, features
from pipeline.selection.words import Phrases, Word, is_rare, naming_words, plain_words, spoken_name
from pipeline.storage.foreign_names import plain

Place = Literal["registry", "profile", "hub"]
"""Where a candidate is known from. What only a hub has must be fetched first."""

LoraAxis = Literal["style", "character", "concept", "detail"]
"""What a LoRA changes; at most one of each is chosen."""

LONGEST_NAME = 120
"""Characters of a name in explanations."""


@dataclass(frozen=True, slots=True)
class ModelCandidate:
    """A model that makes pictures. `reference` finds it; `override` is what a user types to take it.

    `convention` is one of `pipeline.prompting.conventions`. `complete` says that nothing is missing to load it.
    `own_vae`: its profile names a VAE. `is_demo`: the embedded one, for want of others.
    """

    name: str
    reference: str
    family: str | None
    convention: str = ""
    card: ModelCard = field(default_factory=ModelCard)
    bytes: int = 0
    is_distilled: bool = False
    licence: str | None = None
    source: Place = "registry"
    sha256: str | None = None
    complete: bool = True
    own_vae: bool = False
    is_demo: bool = False
    override: str = ""


@dataclass(frozen=True, slots=True)
class LoraCandidate:
    """A LoRA, with the family and convention of the models that it was made for."""

    name: str
    reference: str
    family: str | None
    convention: str = ""
    card: ModelCard = field(default_factory=ModelCard)
    licence: str | None = None
    source: Place = "registry"
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class VaeCandidate:
    """A separate VAE, and the family whose latents it decodes."""

    name: str
    reference: str
    family: str | None
    sha256: str | None = None


_Candidate = TypeVar("_Candidate", ModelCandidate, LoraCandidate)


@dataclass(slots=True)
class Index:
    """What the candidates of one kind are found by. `places` are those in the list of candidates, by reference."""

    claims: tuple[Claims, ...]
    places: Mapping[str, int]
    by_value: Mapping[Value, tuple[int, ...]]
    by_word: Mapping[str, tuple[tuple[int, float], ...]]
    _triggers: Phrases
    _names: Phrases

    def mentions(self, words: Sequence[Word]) -> Iterator[tuple[int, int, int]]:
        """The places of the candidates that these words name, by trigger or name, with the span of the words."""
        return chain(self._triggers.found_in(words), self._names.found_in(words))


@dataclass(slots=True)
class Offers:
    """Everything that can be chosen, in a fixed order: by name, then hash, then reference. Copies are left out.

    `copies` are names of what is a copy of another. `read` analyses a text as prompts are. `memo` holds what has been
    computed for the wishes, ratings and prompts so far; it changes no answer.
    """

    models: tuple[ModelCandidate, ...]
    loras: tuple[LoraCandidate, ...]
    vaes: tuple[VaeCandidate, ...]
    model_index: Index
    lora_index: Index
    lora_axes: tuple[LoraAxis, ...]
    rules: Features
    read: Read
    copies: tuple[str, ...] = ()
    memo: dict[object, object] = field(default_factory=dict)


def offers(
    models: Iterable[ModelCandidate],
    loras: Iterable[LoraCandidate] = (),
    vaes: Iterable[VaeCandidate] = (),
    *,
    read: Read,
) -> Offers:
    """Index these candidates. `read` analyses a text of a card as a prompt is analysed."""
    rules = features()
    kept_models, model_claims, model_copies = _distinct(models, read, rules)
    kept_loras, lora_claims, lora_copies = _distinct(loras, read, rules)
    can_name = _naming(_seen_words((*kept_models, *kept_loras)), read)
    return Offers(
        models=tuple(kept_models),
        loras=tuple(kept_loras),
        vaes=tuple(sorted(vaes, key=_order)),
        model_index=_index(kept_models, model_claims, can_name, rules),
        lora_index=_index(kept_loras, lora_claims, can_name, rules),
        lora_axes=tuple(_axis(lora, claims) for lora, claims in zip(kept_loras, lora_claims, strict=True)),
        rules=rules,
        read=read,
        copies=tuple(model_copies + lora_copies),
    )


@lru_cache(maxsize=4096)
def shown(text: str, longest: int = LONGEST_NAME) -> str:
    """A stranger's text as an explanation may show it: one line of printable characters."""
    return plain(text, longest)


def _order(one: ModelCandidate | LoraCandidate | VaeCandidate) -> tuple[str, str, str, str]:
    return (one.name.casefold(), one.name, one.sha256 or "", one.reference)


def _distinct(
    candidates: Iterable[_Candidate], read: Read, rules: Features
) -> tuple[list[_Candidate], list[Claims], list[str]]:
    """Each content once: of copies the one of which most is known, then a profile's, then the first by name."""
    groups: dict[object, list[tuple[_Candidate, Claims]]] = defaultdict(list)
    for candidate in sorted(candidates, key=_order):
        claims = claims_of(candidate.name, candidate.card, read, rules)
        groups[_content(candidate)].append((candidate, claims))
    kept: list[tuple[_Candidate, Claims]] = []
    copies: list[str] = []
    for group in groups.values():
        best = max(
            group,
            key=lambda one: (one[0].source == "profile", -len(one[1].doubts), len(one[1].words), len(one[1].trust)),
        )
        kept.append(best)
        copies.extend(shown(one[0].name) for one in group if one is not best)
    kept.sort(key=lambda one: _order(one[0]))
    return [one for one, _ in kept], [claims for _, claims in kept], copies


_TELLING_TAGS = 5
"""Tags with the same counts that two LoRAs have only if they were trained on the same pictures."""


def _content(one: ModelCandidate | LoraCandidate) -> object:
    """What copies share: the hash; where none is known, a LoRA's table of training tags. Cards are alike too often."""
    if one.sha256:
        return one.sha256
    if len(one.card.tag_counts) >= _TELLING_TAGS:
        return (one.family, one.convention, one.card.tag_counts)
    return one.reference


_SEEN_IN = 3
"""A word that the cards of so many candidates use in running text is ordinary here."""


def _seen_words(candidates: Sequence[ModelCandidate | LoraCandidate]) -> frozenset[str]:
    """Words that several cards use; copies of one author's text count once."""
    counts = Counter[str]()
    for text in dict.fromkeys(one.card.description for one in candidates):
        counts.update(set(plain_words(text)))
    for texts in dict.fromkeys(one.card.tags for one in candidates):
        counts.update({word for text in texts[:60] for word in plain_words(text, 100)})
    return frozenset(word for word, n in counts.items() if n >= _SEEN_IN)


def _naming(in_cards: frozenset[str], read: Read) -> Callable[[str], bool]:
    """Tells words that can name a candidate from ordinary ones: those of several cards, and of the vocabularies."""

    @cache
    def can_name(word: str) -> bool:
        return is_rare(word, in_cards) and all(one.read_as is not None for one in read(word).evidence)

    return can_name


def _index(
    candidates: Sequence[ModelCandidate | LoraCandidate],
    all_claims: Sequence[Claims],
    can_name: Callable[[str], bool],
    rules: Features,
) -> Index:
    by_value: dict[Value, list[int]] = defaultdict(list)
    by_word: dict[str, list[tuple[int, float]]] = defaultdict(list)
    triggers: list[tuple[tuple[str, ...], int]] = []
    names: list[tuple[tuple[str, ...], int]] = []
    for place, (one, claims) in enumerate(zip(candidates, all_claims, strict=True)):
        for value in claims.trust:
            by_value[value].append(place)
        for word, share in claims.words.items():
            by_word[word].append((place, share))
        said = {tuple(plain_words(trigger, 200)) for trigger in one.card.trigger_words[:20]}
        triggers.extend((words, place) for words in sorted(said) if any(map(can_name, words)))
        stuffed = any("lists" in doubt for doubt in claims.doubts)
        called = {naming_words(one.name), naming_words(spoken_name(one.name))}
        names.extend((words, place) for words in sorted(called) if not stuffed and any(map(can_name, words)))
    most = max(3, len(candidates) // 40)
    return Index(
        claims=tuple(all_claims),
        places={one.reference: place for place, one in enumerate(candidates)},
        by_value={value: tuple(places) for value, places in by_value.items()},
        by_word={word: tuple(found) for word, found in by_word.items() if len(found) <= most},
        _triggers=_specific(triggers, int(rules.limits["specific"])),
        _names=_specific(names, int(rules.limits["specific"])),
    )


def _specific(phrases: Sequence[tuple[tuple[str, ...], int]], most: int) -> Phrases:
    """Those that name few candidates: what many share names none of them."""
    counts = Counter(words for words, _ in phrases)
    found = Phrases()
    for words, place in phrases:
        if counts[words] <= most:
            found.add(words, place)
    return found


_DETAIL = frozenset(("detail", "details", "detailer", "slider", "sliders", "tweaker", "enhancer", "enhance", "fix"))
_CHARACTER = frozenset(("character", "characters", "celebrity"))
_STYLE = frozenset(("style", "styles", "artstyle", "estilo", "artist"))


def _axis(lora: LoraCandidate, claims: Claims) -> LoraAxis:
    """What a LoRA changes: by its tags, then its name, then its looks."""
    tags = {word for tag in lora.card.tags[:60] for word in plain_words(tag, 100)}
    called = set(plain_words(spoken_name(lora.name), 200))
    for said in (tags, called):
        if said & _DETAIL:
            return "detail"
        if said & _CHARACTER:
            return "character"
        if said & _STYLE:
            return "style"
    return "style" if any(axis in ("medium", "style") for axis, _ in claims.trust) else "concept"
