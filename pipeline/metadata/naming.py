"""The path of an image below the output folder: `<folder>/<name>`, without extension.

`standard` is `20250111_143022_a3f2e9d4`, `descriptive` is `20250111_143022_beautiful-sunset_a3f2e9d4`,
`guid` is the whole UUID; `custom` puts together what it is told to. Files are found by their id, never by
their name.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from datetime import UTC
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal, get_args

from pipeline.errors import ConfigError
from pipeline.metadata.metadata_settings import Scheme
from pipeline.ranges import EXCERPT_LENGTH
from pipeline.storage.safe_names import excerpt, safe_component

if TYPE_CHECKING:
    from pipeline.metadata.record import Record

Component = Literal["time", "excerpt", "id8", "uuid", "seed", "index", "model", "name"]

MAX_STEM_BYTES = 180
"""Leaves room for `-9999` and the extension below 200 bytes, and for `.NAME.UUID.tmp` below the 255 of
ext4.
"""

OWN_FOLDERS = frozenset({"manifest", "runs"})
"""Folders below the output folder that hold no images; images among them would be overlooked."""

MAX_FOLDER_DEPTH = 5
MAX_FOLDER_BYTES = 60
"""Per folder: five of them and a file stay far below every path limit but the 260 of old Windows programs."""

_COMPONENTS: dict[Scheme, tuple[Component, ...]] = {
    "standard": ("time", "id8"),
    "descriptive": ("time", "excerpt", "id8"),
    "guid": ("uuid",),
}
_FOLDER_FIELDS = ("name", "model", "date", "year", "month", "day", "seed", "index")
_MAX_TIME_BYTES = 40
_FREE_TEXT = ("excerpt", "model", "name")
# No locale (%b), no zone (%Z: times are UTC), nothing that Windows lacks (%s).
_TIME_FORMAT = re.compile(r"(?:%[YymdHMSfjVGuUW]|[A-Za-z0-9._+=,~-])+")
_SEPARATOR = re.compile(r"[._+=,~-]{1,3}")


@dataclass(frozen=True, slots=True)
class NamingSettings:
    """How names are built.

    `time_format` is strftime's, in UTC and without names of days or zones. `excerpt_length` is in characters.
    `components` counts for `custom` alone; those that an image lacks are left out. `folder` holds literal
    text and `{name}`, `{model}`, `{date}`, `{year}`, `{month}`, `{day}`, `{seed}`, `{index}`, divided by
    `/`; empty is the output folder itself.

    Raises `ConfigError` with all faults found.
    """

    scheme: Scheme = "standard"
    time_format: str = "%Y%m%d_%H%M%S"
    separator: str = "_"
    excerpt_length: int = 40
    components: tuple[Component, ...] = ("time", "excerpt", "id8")
    folder: str = "{name}"

    def __post_init__(self) -> None:
        faults = [*self._faults(), *_folder_faults(self.folder)]
        if faults:
            raise ConfigError([f"naming.{fault}" for fault in faults])

    def _faults(self) -> list[str]:
        faults = []
        if self.scheme not in get_args(Scheme):
            faults.append(f"scheme: {self.scheme!r} is unknown, expected {', '.join(get_args(Scheme))}")
        if not _TIME_FORMAT.fullmatch(self.time_format) or len(self.time_format) > _MAX_TIME_BYTES:
            faults.append(
                f"time_format: {self.time_format!r} cannot stand in a name, expected letters, digits, `-_.`"
                f" and %Y %y %m %d %H %M %S %f %j %V %G %u %U %W, at most {_MAX_TIME_BYTES} characters"
            )
        if not _SEPARATOR.fullmatch(self.separator):
            faults.append(f"separator: {self.separator!r} is not usable, expected one to three of `-_.+=,~`")
        if EXCERPT_LENGTH.fault(self.excerpt_length):
            bounds = f"{EXCERPT_LENGTH.least} to {EXCERPT_LENGTH.most}"
            faults.append(f"excerpt_length: {self.excerpt_length!r} is out of range, expected {bounds}")
        unknown = [name for name in self.components if name not in get_args(Component)]
        if unknown:
            faults.append(f"components: {unknown[0]!r} is unknown, expected some of {', '.join(get_args(Component))}")
        elif not self.components or len(set(self.components)) != len(self.components):
            faults.append(f"components: {list(self.components)!r}, expected at least one and none twice")
        return faults


def image_path(settings: NamingSettings, record: Record) -> PurePosixPath:
    """Folder and stem, relative to the output folder; the caller adds the extension.

    Safe on Linux, macOS and Windows, and never above the output folder. Stems are lower-case but for
    `time_format`, so names that differ do so on file systems that ignore case. Two images may still get one
    name (`custom` without an id): `saved_files.store` then counts on.
    """
    facts = _facts(record, settings.time_format)
    return PurePosixPath(*_folders(settings.folder, facts), _stem(settings, facts, record.prompt))


def _facts(record: Record, time_format: str) -> dict[str, str]:
    """What names and folders are put together from, besides the prompt; empty for what the image lacks."""
    created, index = record.created.astimezone(UTC), record.job.prompt_index
    return {
        "time": created.strftime(time_format),
        "date": created.strftime("%Y-%m-%d"),
        "year": created.strftime("%Y"),
        "month": created.strftime("%m"),
        "day": created.strftime("%d"),
        "id8": record.id[:8],
        "uuid": record.id,
        "seed": str(record.seed),
        "index": "" if index is None else f"{index:06d}",
        "model": record.model.name,
        "name": record.job.name or "",
    }


def _stem(settings: NamingSettings, facts: dict[str, str], prompt: str) -> str:
    chosen = _COMPONENTS.get(settings.scheme, settings.components)
    free_texts = [component for component in chosen if component in _FREE_TEXT]
    taken = sum(len(facts[component].encode()) for component in chosen if component not in free_texts)
    share = (MAX_STEM_BYTES - taken - 3 * len(chosen)) // max(len(free_texts), 1)
    parts = []
    for component in chosen:
        if component == "excerpt":
            parts.append(excerpt(prompt, settings.excerpt_length, share))
        elif component in free_texts:
            parts.append(safe_component(facts[component].lower(), share))
        else:
            parts.append(facts[component])
    # Once more as a whole: parts may add up to a reserved name, or to nothing at all.
    stem = safe_component(settings.separator.join(part for part in parts if part), MAX_STEM_BYTES)
    return stem or facts["uuid"]


def _folders(template: str, facts: dict[str, str]) -> list[str]:
    # Each level is filled in by itself: a `/` in a model's name must not make a folder.
    filled = (safe_component(level.format_map(facts), MAX_FOLDER_BYTES) for level in template.split("/"))
    levels = [level for level in filled if level]
    if levels and levels[0].casefold() in OWN_FOLDERS:
        levels[0] = f"_{levels[0]}"
    return levels


def _folder_faults(folder: str) -> list[str]:
    def fault(reason: str) -> list[str]:
        return [f"folder: {folder!r} {reason}"]

    try:
        pieces = list(string.Formatter().parse(folder))
    except ValueError as error:
        return fault(f"is not a template ({error}), expected text and placeholders such as {{name}}/{{date}}")
    for literal, placeholder, specification, conversion in pieces:
        if placeholder is not None and (placeholder not in _FOLDER_FIELDS or specification or conversion):
            known = ", ".join(f"{{{name}}}" for name in _FOLDER_FIELDS)
            return fault(f"has the unknown placeholder {{{placeholder}}}, expected some of {known}")
        if re.search(r'[\\:*?"<>|\x00-\x1f]', literal):
            return fault("has a mark that no folder can have, expected a relative path divided by `/`")
    levels = folder.split("/")
    if folder and not all(levels):
        return fault("starts or ends with `/` or has an empty level, expected a relative path such as {name}/{date}")
    if any(level.strip(" ") in (".", "..") for level in levels):
        return fault("leads out of the output folder, expected a relative path without `..`")
    if levels[0].casefold() in OWN_FOLDERS:
        return fault(f"is Darkroom's own folder, expected another name than {' and '.join(sorted(OWN_FOLDERS))}")
    if len(levels) > MAX_FOLDER_DEPTH:
        return fault(f"is {len(levels)} levels deep, expected at most {MAX_FOLDER_DEPTH}")
    return []
