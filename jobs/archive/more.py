"""More like an image: its settings again, with other seeds or with some keys changed, as the arguments of runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from jobs.archive.image_settings import settings_of_record
from jobs.archive.named_images import named_images
from jobs.archive.search import search
from jobs.archive.show import describe
from jobs.config.composition import GROUPS
from jobs.config.prompt_argument import PROMPT, quoted
from jobs.config.values import Seeds
from jobs.manifest.layout import Layout
from jobs.manifest.query import stream
from pipeline.errors import ConfigError, ReadError
from pipeline.request import MAX_SEED

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

    from pipeline.metadata.metadata_settings import Profile
    from pipeline.metadata.record import Record

NEW_SEEDS = 4
"""So many are taken where neither seeds nor other settings are said."""

MAX_IMAGES = 10_000
"""So many images a condition may find; more is a slip."""

SET = "more"
"""The name of the prompt set of what is made like other images."""

MAX_COMMAND = 20_000
"""Characters of prompts up to which they are given on a command line, which is kept and can be given again."""

_OVERRIDE = re.compile(r"[+~]*([A-Za-z_][\w./@:-]*)=(.*)", re.DOTALL)
_RECIPE = ("model", "memory", "sampling", "adapters", "init", "prompts", "prompt", "grid", "selection")
"""Sections that change the picture: with one of them changed, the image's own seed shows by how much."""


@dataclass(frozen=True, slots=True)
class RunLike:
    """A run that makes more of images with the same settings: its arguments, and its prompts, as `prompts.lines`."""

    arguments: tuple[str, ...]
    lines: list[dict[str, Any]]

    @property
    def command(self) -> list[str] | None:
        """The arguments with the prompts; None if these are too many for a command line."""
        text = override_value(self.lines)
        return None if len(text) > MAX_COMMAND else [*self.arguments, f"prompts.lines={text}"]


@dataclass(slots=True)
class _Changes:
    """What the user says: `overrides` for the run, `groups` of which another option is chosen, their `keys`."""

    overrides: list[str]
    groups: set[str]
    keys: set[str]
    seeds: Sequence[int] | None
    count: int
    prompt: str | None


def runs_like(words: Sequence[str], where: str | None, output_dir: Path) -> list[RunLike]:
    """The runs that make more like the images that are named among the words, or that a condition finds.

    The other words are `key=value` and `group=option` as for a run, but for `seeds=4`, which means four seeds that the
    prompt does not have yet, after the image's own. Raises `ConfigError`, `ReadError`, and `ModelError` for weights and
    pictures that are not on this machine.
    """
    names = [word for word in words if not _is_override(word)]
    changes = _changes([word for word in words if _is_override(word)])
    images = _images(names, where, output_dir)
    folders = {output_dir, *(Path(value) for key, value in map(_pair, changes.overrides) if key == "output.dir")}
    used = _used_seeds({_text(record, changes) for record, _ in images}, folders)
    runs: dict[tuple[str, ...], RunLike] = {}
    known: dict[str, tuple[str, ...]] = {}
    for record, profile in images:
        key = _settings_key(record) + profile
        if key not in known:
            known[key] = tuple(_arguments(record, profile, changes, output_dir))
        run = runs.setdefault(known[key], RunLike(known[key], []))
        run.lines.append(_line(record, changes, used.setdefault(_text(record, changes), set())))
    return list(runs.values())


def override_value(value: Any) -> str:
    """A value as Hydra reads it on a command line; texts are literal."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return quoted(value)
        case Mapping():
            return "{" + ",".join(f"{key}:{override_value(one)}" for key, one in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(map(override_value, value)) + "]"
        case _:
            return repr(value)


def _is_override(word: str) -> bool:
    return _OVERRIDE.fullmatch(word) is not None and not _is_file(word)


def _is_file(word: str) -> bool:
    """Whether a word names a file; a prompt may be too long for a name."""
    with suppress(OSError, ValueError):
        return Path(word).is_file()
    return False


def _pair(override: str) -> tuple[str, str]:
    match = _OVERRIDE.fullmatch(override)
    return (match[1], match[2]) if match else (override, "")


def _changes(words: Sequence[str]) -> _Changes:
    pairs = [(word, *_pair(word)) for word in words]
    said = {key: value for _, key, value in pairs}
    for key in ("prompts.lines", "prompts.file", "prompts.characters", "prompts"):
        if key in said:
            raise ConfigError(f"{key}: the prompts are those of the images; {PROMPT}=TEXT gives another one")
    own = (PROMPT, "seeds")
    keys = {key for key in said if key not in GROUPS and key not in own}
    groups = {key for key, value in said.items() if key in GROUPS and not value.startswith("{")}
    groups |= {"model"} if "model.source" in keys else set()
    seeds, count = (None, NEW_SEEDS) if "seeds" not in said else _said_seeds(said["seeds"])
    if "seeds" not in said and any(key.partition(".")[0] in _RECIPE for key in said):
        count = 0
    return _Changes([word for word, key, _ in pairs if key not in own], groups, keys, seeds, count, said.get(PROMPT))


def _said_seeds(value: str) -> tuple[Sequence[int] | None, int]:
    """A number says how many; a list, mapping or range says which."""
    from pydantic import TypeAdapter, ValidationError

    if value.isdecimal():
        if not 1 <= int(value) <= MAX_IMAGES:
            raise ConfigError(f"seeds={value}: says how many new seeds, 1 to {MAX_IMAGES:,}; seeds=[{value}] is a seed")
        return None, int(value)
    try:
        found = yaml.safe_load(value) if value[:1] in "[{\"'" else value
        return TypeAdapter(Seeds).validate_python(found), 0
    except (yaml.YAMLError, ValidationError) as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ") if isinstance(error, ValidationError) else error
        raise ConfigError(f"seeds: {reason}") from None


def _images(names: Sequence[str], where: str | None, output_dir: Path) -> list[tuple[Record, Profile]]:
    """Of the named images and those that are found, each once, the oldest of those found first; with how much each
    tells in its file."""
    if bool(names) == (where is not None):
        raise ConfigError("more: name images, or give a condition with --where")
    found: dict[str, tuple[Record, Profile]] = {}
    for name in names:
        place = Path(name)
        if not _is_file(name):
            image_id = named_images([name], output_dir)[0].image_id
            found |= _of_rows(f"image_id = '{image_id}'", output_dir)
            continue
        record = describe(place, output_dir).record
        if record is None:
            raise ReadError(f"{name}: was not made by Darkroom, so its settings are not known")
        found[record.id] = (record, _profile(place))
    if where is not None:
        found = _of_rows(where, output_dir)
        if not found:
            raise ConfigError(f"--where {where!r}: finds no image")
    return list(found.values())


def _of_rows(where: str, output_dir: Path) -> dict[str, tuple[Record, Profile]]:
    rows = list(search(output_dir, "", where, ("path", "record_json"), "created_at,image_id", MAX_IMAGES + 1))
    if len(rows) > MAX_IMAGES:
        raise ConfigError(f"--where {where!r}: finds more than {MAX_IMAGES:,} images; say more of them")
    records = [
        (_parsed(row["path"], row["record_json"]), _profile(output_dir / row["path"])) for row in rows if row["path"]
    ]
    return {record.id: (record, profile) for record, profile in records}


def _profile(image: Path) -> Profile:
    """How much an image tells, which those like it do not exceed; of one that is gone, nothing is known."""
    from pipeline.metadata.reading import read_profile

    try:
        return read_profile(image)
    except (ReadError, OSError):
        return "private"


def _parsed(place: str, record_json: str | None) -> Record:
    from pipeline.metadata.reading import parse_record

    if record_json is None:
        raise ReadError(f"{place}: its row has no record, so its settings are not known")
    return parse_record(record_json)


def _used_seeds(prompts: set[str], output_dirs: set[Path]) -> dict[str, set[int]]:
    """The seeds that these prompts have in the manifests of the folders, also those of failed images."""
    used: dict[str, set[int]] = {prompt: set() for prompt in prompts}

    def select(connection: DuckDBPyConnection) -> DuckDBPyRelation:
        from duckdb import ColumnExpression, ConstantExpression

        wanted = ColumnExpression("prompt").isin(*map(ConstantExpression, sorted(prompts)))
        return connection.view("images").filter(wanted).select("prompt", "seed").distinct()

    for folder in output_dirs:
        if Layout(folder).root.is_dir():
            for rows in stream(folder, select, feedback=False):
                for prompt, seed in rows:
                    used[prompt].add(seed)
    return used


def _text(record: Record, changes: _Changes) -> str:
    return record.prompt if changes.prompt is None else changes.prompt


def _line(record: Record, changes: _Changes, used: set[int]) -> dict[str, Any]:
    """The prompt of an image as a line of a prompt set; its new seeds are added to those in use."""
    if changes.seeds is not None:
        seeds = changes.seeds
    else:
        seeds = list(_unused(record.seed, used, changes.count)) if changes.count else [record.seed]
    used.update(seeds)
    negative = {} if "prompts.negative_prompt" in changes.keys else {"negative_prompt": record.negative_prompt}
    said = {
        "text": _text(record, changes),
        **negative,
        "seeds": list(seeds),
        "tags": list(record.job.tags),
        "derived_from": record.id,
    }
    return said if "name" in changes.keys or not record.job.name else {**said, "name": record.job.name}


def _unused(seed: int, used: set[int], count: int) -> Iterator[int]:
    """The next seeds after one that are not in use; after the last one comes 0."""
    while count:
        seed = (seed + 1) % (MAX_SEED + 1)
        if seed not in used:
            count -= 1
            yield seed


def _settings_key(record: Record) -> str:
    """What is equal for records whose arguments are."""
    named = (
        *("width", "height", "steps", "guidance_scale", "clip_skip", "step_cache", "model", "vae", "loras"),
        *("embeddings", "controlnets", "ip_adapters", "init", "memory", "output"),
    )
    said = {name: repr(getattr(record, name)) for name in named}
    return repr((said, record.scheduler.name, sorted(record.scheduler.options.items())))


def _arguments(record: Record, profile: Profile, changes: _Changes, output_dir: Path) -> Iterator[str]:
    """The settings of a record, then what the user has changed, without the prompts."""
    own = record.model_copy(update=dict(_adapters_changed(changes.keys)))
    settings = settings_of_record(own, changes.groups)
    yield "~profile"
    yield from (f"{group}={option}" for group, option in settings.choices.items())
    yield f"output.dir={override_value(str(output_dir))}"
    if "metadata" not in changes.groups:
        yield f"metadata={profile}"
    yield f"output.format={record.output.format}"
    if record.output.quality is not None:
        yield f"metadata.quality={record.output.quality}"
    elif record.output.format == "webp":
        yield "metadata.lossless=true"
    yield from _overrides(settings.values)
    # The text stands as the model got it: nothing is drawn, added or read in it.
    yield from ("prompts=demo", f"prompts.name={SET}", "prompts.model=null", "prompts.tags=[]")
    yield from ("prompts.prefix=''", "prompts.suffix=''", "prompts.variants.mode=literal", "adapters.tags=false")
    yield from changes.overrides


def _adapters_changed(keys: set[str]) -> Iterator[tuple[str, Any]]:
    """Adapters that are said anew need not be here any more."""
    for name in ("loras", "embeddings", "controlnets", "ip_adapters"):
        if f"adapters.{name}" in keys or "adapters" in keys:
            yield name, []
    if "init.image" in keys or "init" in keys:
        yield "init", None


def _overrides(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping) and key != "scheduler_options":
            yield from _overrides(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={override_value(value)}"
