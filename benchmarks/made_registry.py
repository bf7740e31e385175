"""A made registry of 200 models and 2,000 LoRAs of which it is known what they are, with lies among them.

Each has a truth (the look that it makes, and what it shows) that only tests see, and a card that says it, or does not:

| lie | what it is |
| --- | --- |
| stuffed | a name with all the looks there are, an empty card; it makes photographs |
| wrong tags | filed under one look, while description, examples and training tags say another, which is true |
| empty | a name that claims a look, and nothing else; it makes something else |
| copy | the same weights as an honest one, under a name that claims another look |
| all tags | filed under every look, described as one |
| other base | of LoRAs: all the right words, made for a family or base that none of the models has |
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.prompting.analysis import PromptAnalysis
from pipeline.registry.database import Registry
from pipeline.registry.records import ModelCard, StoredFile, StoredKind, StoredModel
from pipeline.registry.storing import add
from pipeline.selection.bases import convention_of
from pipeline.selection.candidates import LoraCandidate, ModelCandidate, Offers, offers

GIGABYTE = 10**9


@dataclass(frozen=True, slots=True)
class Look:
    """A look: tags and sentences of cards, and what prompts in two languages say, with `{}` for the subject."""

    name: str
    tags: tuple[str, ...]
    says: tuple[str, ...]
    english: tuple[str, ...]
    spanish: tuple[str, ...]
    near: tuple[str, ...] = ()
    """Looks whose models serve it as well."""


LOOKS = {
    look.name: look
    for look in (
        Look("photo", ("photography", "photorealistic", "realistic"),
             ("Trained on photographs, for photorealistic pictures.", "A realistic model for photos."),
             ("a photo of {}", "photograph of {}, natural light"), ("una fotografía de {}", "foto de {}")),
        Look("anime", ("anime", "manga"),
             ("A model for anime pictures.", "Makes anime illustrations with clean lines."),
             ("anime style, {}", "{}, anime"), ("{}, estilo anime", "dibujo anime de {}")),
        Look("oil", ("oil painting", "painting"),
             ("Oil paintings with thick brush strokes.", "Learned from oil on canvas."),
             ("an oil painting of {}", "{}, oil on canvas"), ("una pintura al óleo de {}", "{}, óleo")),
        Look("watercolour", ("watercolor", "painting"),
             ("Soft watercolour washes on paper.", "Watercolor paintings."),
             ("a watercolour of {}", "{}, watercolor painting"), ("una acuarela de {}", "{} en acuarela")),
        Look("pixel", ("pixel art", "8-bit"),
             ("Pixel art sprites.", "For pixel art of old games."),
             ("pixel art of {}", "{}, pixel art"), ("pixel art de {}", "{}, pixel art")),
        Look("3d", ("3d", "3d render"),
             ("Looks like a 3D render.", "3D rendered pictures."),
             ("a 3d render of {}", "{}, 3d render"), ("un render 3d de {}", "{}, render 3d")),
        Look("comic", ("comic", "comic book"),
             ("Comic book pages with bold outlines.", "In the style of comics."),
             ("{}, comic book style", "comic style {}"), ("{}, estilo cómic", "{} en estilo cómic"),
             near=("cartoon",)),
        Look("cartoon", ("cartoon",),
             ("Cartoon figures for children.", "A cartoon style."),
             ("a cartoon of {}", "{}, cartoon style"), ("{}, estilo cartoon", "{} en estilo de dibujos animados"),
             near=("comic",)),
        Look("pencil", ("pencil drawing", "drawing"),
             ("Pencil drawings on rough paper.", "Graphite pencil drawing."),
             ("a pencil drawing of {}", "{}, pencil drawing"), ("un dibujo a lápiz de {}", "{}, dibujo a lápiz"),
             near=("ink",)),
        Look("ink", ("ink drawing", "drawing"),
             ("Ink drawings, black on white.", "Drawings in ink."),
             ("an ink drawing of {}", "{}, ink drawing"), ("un dibujo a tinta de {}", "{}, dibujo a tinta"),
             near=("pencil",)),
        Look("vector", ("vector art", "vector"),
             ("Flat vector art.", "Vector illustrations."),
             ("vector art of {}", "{}, vector illustration"), ("arte vectorial de {}", "{}, ilustración vectorial")),
        Look("concept_art", ("concept art", "digital painting"),
             ("Concept art for games and films.", "Concept art."),
             ("concept art of {}", "{}, concept art"), ("arte conceptual de {}", "{}, arte conceptual"),
             near=("digital_painting", "fantasy")),
        Look("cyberpunk", ("cyberpunk",),
             ("Cyberpunk scenes.", "Made for cyberpunk."),
             ("{}, cyberpunk style", "cyberpunk {}"), ("{}, estilo cyberpunk", "{} ciberpunk")),
        Look("ukiyo_e", ("ukiyo-e", "woodblock print"),
             ("Ukiyo-e, as Japanese woodblock prints.", "In the style of ukiyo-e."),
             ("{}, ukiyo-e", "an ukiyo-e of {}"), ("{}, ukiyo-e", "un ukiyo-e de {}")),
        Look("papercraft", ("papercraft",),
             ("Papercraft scenes of folded paper.", "Papercraft."),
             ("a papercraft of {}", "{}, papercraft"), ("{}, papercraft", "papercraft de {}")),
        Look("stained_glass", ("stained glass",),
             ("Stained glass windows.", "Pictures as stained glass."),
             ("a stained glass window of {}", "{}, stained glass"), ("una vidriera de {}", "{}, vidriera")),
    )
}  # fmt: skip
"""The looks that models are made for."""

SUBJECTS = (
    ("a dog on the beach", "un perro en la playa"),
    ("a red car", "un coche rojo"),
    ("a lighthouse in a storm", "un faro en la tormenta"),
    ("an old fisherman", "un viejo pescador"),
    ("a castle on a hill", "un castillo en una colina"),
    ("a bowl of fruit", "un cuenco de fruta"),
    ("two children under a tree", "dos niños bajo un árbol"),
    ("a mountain lake at dawn", "un lago de montaña al amanecer"),
)

_BASES = (
    ("sd15", "SD 1.5", 2), ("sdxl", "SDXL 1.0", 7), ("sdxl", "SDXL 1.0", 7), ("sdxl", "Pony", 7),
    ("sdxl", "Illustrious", 7), ("flux", "Flux.1 D", 24), ("sd3", "SD 3.5", 16), ("z_image", "ZImageTurbo", 12),
)  # fmt: skip
"""Families, the bases' own names, and gigabytes."""

_ABSENT_BASES = (("sd2", "SD 2.1"), ("hunyuan", "Hunyuan 1"), ("kolors", "Kolors"))
"""Of LoRAs that no model here can take."""

_STUFFED = "Best_Anime_Photo_Realistic_Oil_Painting_Watercolor_3D_Comic_Cartoon_Cyberpunk_Pixel_Art"
_SYLLABLES = (
    "ka",
    "zu",
    "mor",
    "vex",
    "lin",
    "tah",
    "qui",
    "rho",
    "bel",
    "nax",
    "dru",
    "fyo",
    "gal",
    "wen",
    "oss",
    "piv",
)


@dataclass(frozen=True, slots=True)
class Truth:
    """What a candidate really makes: a look, `general`, or the look that a liar makes instead. `lie`: which."""

    look: str
    lie: str = ""
    trigger: str = ""


@dataclass(frozen=True, slots=True)
class MadePrompt:
    """A prompt, and the looks of the models that suit it; `trigger` is the word of the LoRA that it names."""

    text: str
    looks: frozenset[str]
    trigger: str = ""
    needs_text: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """The registry, and the truth about each candidate by its reference."""

    models: tuple[ModelCandidate, ...]
    loras: tuple[LoraCandidate, ...]
    truth: dict[str, Truth]

    def offers(self, read: Callable[[str], PromptAnalysis]) -> Offers:
        """All of it as what can be chosen."""
        return offers(self.models, self.loras, read=read)

    def suits(self, reference: str, prompt: MadePrompt) -> bool:
        """Whether a person who knows the truth would take this model for the prompt."""
        truth = self.truth[reference]
        if truth.lie:
            return False
        if prompt.needs_text:
            family = next(model.family for model in self.models if model.reference == reference)
            return family in ("flux", "sd3", "z_image", "qwen_image") and truth.look in ("general", "photo")
        return truth.look in prompt.looks


def made_registry(seed: int = 7) -> Made:
    """The same registry for the same seed."""
    draw = random.Random(seed)
    models: list[ModelCandidate] = []
    loras: list[LoraCandidate] = []
    truth: dict[str, Truth] = {}
    for candidate, true in [*_models(draw), *_liars(draw)]:
        models.append(candidate)
        truth[candidate.reference] = true
    for place in range(200 - len(models)):
        honest = models[place * 2]
        copy = _copy_of(honest, draw, place)
        models.append(copy)
        truth[copy.reference] = Truth(truth[honest.reference].look, "copy")
    for lora, true in _loras(draw):
        loras.append(lora)
        truth[lora.reference] = true
    assert (len(models), len(loras)) == (200, 2000)
    return Made(tuple(models), tuple(loras), truth)


def made_prompts() -> list[MadePrompt]:
    """Prompts with known answers: every look with every subject, in two languages; no look; writing."""
    prompts = [
        MadePrompt(phrase.format(subjects[language]), frozenset((look.name, *look.near)))
        for look in LOOKS.values()
        for number, subjects in enumerate(SUBJECTS)
        for language, phrases in enumerate((look.english, look.spanish))
        for phrase in (phrases[number % len(phrases)],)
    ]
    unsaid = [MadePrompt(text, frozenset(("general", "photo"))) for subjects in SUBJECTS for text in subjects]
    writing = [
        MadePrompt('a shop sign that says "OPEN"', frozenset(), needs_text=True),
        MadePrompt('a poster with the words "Grand Hotel"', frozenset(), needs_text=True),
        MadePrompt("un cartel que dice «Bienvenidos»", frozenset(), needs_text=True),
    ]
    return [*prompts, *unsaid, *writing]


def trigger_of(number: int) -> str:
    """A word that no language has, another for each number."""
    one, rest = number % 16, number // 16
    return f"{_SYLLABLES[one]}{_SYLLABLES[rest % 16]}{_SYLLABLES[(one * 5 + rest // 16 + 3) % 16]}x"


def _card(look: Look, draw: random.Random, base: str, subject: str = "") -> ModelCard:
    return ModelCard(
        description=f"{draw.choice(look.says)} Best without a negative prompt. {subject}".strip(),
        base_model=base,
        tags=(*draw.sample(look.tags, k=draw.randint(1, len(look.tags))), "base model"),
        example_prompts=tuple(
            draw.choice(look.english).format(draw.choice(SUBJECTS)[0]) for _ in range(draw.randint(0, 4))
        ),
        licence=draw.choice(("apache-2.0", "openrail++", "cc-by-nc-4.0", "")),
        thumbs_up=draw.choice((None, 3, 40, 900, 20_000)),
    )


def _model(name: str, base: tuple[str, str, int], card: ModelCard, number: int, draw: random.Random) -> ModelCandidate:
    family, base_name, gigabytes = base
    return ModelCandidate(
        name=name,
        reference=f"/models/{number:03}.safetensors",
        family=family,
        convention=convention_of(family, name, card),
        card=card,
        bytes=gigabytes * GIGABYTE,
        is_distilled="Turbo" in base_name,
        licence=card.licence or None,
        sha256=f"{draw.getrandbits(256):064x}",
    )


def _models(draw: random.Random) -> Iterator[tuple[ModelCandidate, Truth]]:
    """Honest ones: five a look, and some that make everything."""
    number = 0
    for look in LOOKS.values():
        for _ in range(5):
            base = draw.choice(_BASES)
            name = f"{trigger_of(900 + number).title()}_{draw.choice(('v2', 'XL', 'mix', look.name.title()))}"
            yield _model(name, base, _card(look, draw, base[1]), number, draw), Truth(look.name)
            number += 1
    for _ in range(20):
        base = draw.choice(_BASES)
        card = ModelCard(
            description="A general model for photographs, paintings, anime and 3D renders alike.",
            base_model=base[1],
            tags=draw.choice(((), ("base model",), ("photography", "painting", "anime", "3d"))),
            thumbs_up=draw.choice((None, 100, 9_000)),
        )
        name = f"{trigger_of(900 + number).title()}_base"
        yield _model(name, base, card, number, draw), Truth("general")
        number += 1


def _liars(draw: random.Random) -> Iterator[tuple[ModelCandidate, Truth]]:
    looks = list(LOOKS.values())
    number = 100
    for kind, count in (("stuffed", 20), ("wrong tags", 24), ("empty", 20), ("all tags", 8)):
        for _ in range(count):
            claimed, true = draw.sample(looks[:12], k=2)
            while _same_camp(claimed.name, true.name):
                claimed, true = draw.sample(looks[:12], k=2)
            base = draw.choice(_BASES)
            honest = _card(true, draw, base[1])
            popular = draw.choice((900, 20_000, 90_000))
            if kind == "stuffed":
                name, card = f"{_STUFFED}_{number}", ModelCard(base_model=base[1], thumbs_up=popular)
            elif kind == "wrong tags":
                name = f"{trigger_of(900 + number).title()}_{claimed.name.title()}"
                card = ModelCard(
                    description=honest.description, tags=claimed.tags, base_model=base[1],
                    example_prompts=tuple(true.english[0].format(one) for one, _ in SUBJECTS[:3]), thumbs_up=popular,
                )  # fmt: skip
            elif kind == "empty":
                name = f"{claimed.tags[0].title().replace(' ', '_')}_{number}"
                card = ModelCard(base_model=base[1], thumbs_up=popular)
            else:
                name = f"{trigger_of(900 + number).title()}_ultimate"
                tags = tuple(tag for look in looks for tag in look.tags)
                card = ModelCard(description=honest.description, tags=tags, base_model=base[1], thumbs_up=popular)
            yield _model(name, base, card, number, draw), Truth(true.name, kind)
            number += 1


def _copy_of(honest: ModelCandidate, draw: random.Random, number: int) -> ModelCandidate:
    claimed = draw.choice(list(LOOKS.values()))
    card = ModelCard(tags=claimed.tags, base_model=honest.card.base_model, thumbs_up=90_000)
    return ModelCandidate(
        name=f"{claimed.tags[0].title().replace(' ', '_')}_Ultra_{number}",
        reference=f"/models/copy{number:03}.safetensors",
        family=honest.family,
        convention=honest.convention,
        card=card,
        bytes=honest.bytes,
        is_distilled=honest.is_distilled,
        sha256=honest.sha256,
    )


def _same_camp(one: str, other: str) -> bool:
    """Whether both are drawn, or both painted: there a wrong tag is hardly one."""
    camps = (
        ("anime", "comic", "cartoon", "pencil", "ink", "vector", "pixel"),
        ("oil", "watercolour", "concept_art"),
    )
    return any(one in camp and other in camp for camp in camps)


def _trained(look: Look, draw: random.Random, subject: str = "") -> tuple[tuple[str, int], ...]:
    words = (*look.tags, *((subject,) if subject else ()), "solo", "simple background")
    return tuple((word, draw.randint(60, 100) if word in look.tags else draw.randint(5, 60)) for word in words)


_THINGS = (
    "gondola",
    "windmill",
    "typewriter",
    "hourglass",
    "astrolabe",
    "zeppelin",
    "samovar",
    "pagoda",
    "lantern",
    "igloo",
)


def _loras(draw: random.Random) -> Iterator[tuple[LoraCandidate, Truth]]:
    looks = list(LOOKS.values())
    plan = (
        ("style", 500), ("character", 300), ("concept", 200), ("detail", 100), ("stuffed", 200), ("wrong tags", 200),
        ("empty", 150), ("copy", 150), ("other base", 200),
    )  # fmt: skip
    number = 0
    honest: list[tuple[LoraCandidate, str]] = []
    for kind, count in plan:
        for _ in range(count):
            look, claimed = draw.choice(looks), draw.choice(looks[:12])
            while claimed is look or _same_camp(claimed.name, look.name):
                claimed = draw.choice(looks[:12])
            family, base, _ = draw.choice(_BASES)
            trigger = trigger_of(number)
            reference, sha256 = f"/loras/{number:04}.safetensors", f"{draw.getrandbits(256):064x}"
            name, lie, true = f"{trigger}_{number}", "", look.name
            thumbs = draw.choice((None, 5, 300, 8_000))
            if kind == "style":
                card = ModelCard(
                    description=draw.choice(look.says), base_model=base, tags=("style", look.tags[0]),
                    trigger_words=(trigger,), tag_counts=_trained(look, draw), thumbs_up=thumbs,
                    weight=draw.choice((None, 0.7, 1.0)),
                )  # fmt: skip
                name = f"{look.tags[0].title().replace(' ', '')}Style_{trigger}"
            elif kind == "character":
                card = ModelCard(description="A character.", base_model=base, tags=("character",),
                                 trigger_words=(trigger,), tag_counts=(("solo", 40), ("smile", 12)))  # fmt: skip
                true = "character"
            elif kind == "concept":
                thing = draw.choice(_THINGS)
                name, true = f"{thing}_{number}", thing
                card = ModelCard(description=f"Adds a {thing}.", base_model=base, tags=("objects", thing),
                                 trigger_words=(f"{trigger} {thing}",), tag_counts=((thing, 80),))  # fmt: skip
            elif kind == "detail":
                name, true = f"detail_slider_{number}", "detail"
                card = ModelCard(description="More or less fine detail.", base_model=base, tags=("slider",),
                                 thumbs_up=50_000)  # fmt: skip
            elif kind == "stuffed":
                name, lie, card = f"{_STUFFED}_{number}", kind, ModelCard(base_model=base, thumbs_up=90_000)
            elif kind == "wrong tags":
                name, lie = f"{claimed.tags[0].title().replace(' ', '')}_{trigger}", kind
                card = ModelCard(tags=("style", *claimed.tags), base_model=base, tag_counts=_trained(look, draw),
                                 description="Use it with a weight of one.", thumbs_up=90_000)  # fmt: skip
            elif kind == "empty":
                name, lie = f"{claimed.tags[0].title().replace(' ', '_')}_lora_{number}", kind
                card = ModelCard(base_model=base, thumbs_up=90_000)
            elif kind == "copy":
                original, true = draw.choice(honest)
                name, lie, sha256, family = (
                    f"{claimed.name}_new_{number}",
                    kind,
                    original.sha256 or "",
                    original.family or "",
                )
                card = ModelCard(tags=("style", *claimed.tags), base_model=original.card.base_model, thumbs_up=90_000)
            else:
                family, base = draw.choice(_ABSENT_BASES)
                lie, name = kind, f"{look.tags[0].title().replace(' ', '')}Style_{trigger}"
                card = ModelCard(
                    description=" ".join(look.says), base_model=base, tags=("style", *look.tags),
                    trigger_words=(trigger,), tag_counts=_trained(look, draw), thumbs_up=90_000,
                )  # fmt: skip
            lora = LoraCandidate(
                name=name, reference=reference, family=family, convention=convention_of(family, "", card), card=card,
                licence="apache-2.0", sha256=sha256,
            )  # fmt: skip
            if kind == "style":
                honest.append((lora, true))
            yield lora, Truth(true, lie, trigger if kind in ("style", "character") else "")
            number += 1


def write_made(made: Made, registry: Registry, folder: Path) -> None:
    """Put the made candidates into a registry, with an empty file for each; names, cards and hashes are theirs."""
    kinds: tuple[tuple[StoredKind, tuple[ModelCandidate | LoraCandidate, ...]], ...]
    kinds = (("checkpoint", made.models), ("lora", made.loras))
    with registry.changing():
        for kind, candidates in kinds:
            for one in candidates:
                path = folder / one.reference.strip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                model = StoredModel(
                    name=one.name, source="local", reference=str(path), kind=kind, path=path, family=one.family,
                    bytes=one.bytes if isinstance(one, ModelCandidate) else 0, licence=one.licence,
                )  # fmt: skip
                add(registry, model, [StoredFile.at(path, path.name, sha256=one.sha256)], one.card)
