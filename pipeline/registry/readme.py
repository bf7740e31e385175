"""Reads a model's `README.md`: the fields of its front matter that matter here, and its text.

The front matter is YAML as the hub's programs write it: keys with a text, or with a list of texts or of objects. Other
forms are passed over; what is kept are bounded texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path

from pipeline.registry.card_fields import MOST_WORDS, description, distinct, prompts, text_of
from pipeline.registry.hints import Hints
from pipeline.registry.records import ModelCard
from pipeline.registry.settings_in_text import settings_in
from pipeline.storage.foreign_names import plain

_MOST_BYTES = 256 * 2**10
"""So much of the beginning is read; the longest that people read have some ten thousand."""

_MOST_LINES = 2_000
_MOST_TAGS = 20
_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_KEY = re.compile(r"([A-Za-z_]\w*):(?:\s+(.*))?$")
_HEADING = re.compile(r"^#\s+(.+)$", re.MULTILINE)
_EXAMPLE = re.compile(r"(\s*(?:-\s+)?)text:(?:\s+(.*))?$")
_BLOCK = re.compile(r"[|>][+-]?\d?$")


def readme_hints(path: Path | None) -> Hints:
    """The hints in a `README.md`; none where there is none, or it cannot be read."""
    if path is None:
        return Hints()
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return Hints()
    front = _FRONT_MATTER.match(content)
    fields = _fields(front[1].splitlines()[:_MOST_LINES] if front else [])
    text = text_of([content[front.end() :] if front else content])
    heading = _HEADING.search(text)
    licence = _first(fields.get("license", []))
    card = ModelCard(
        title=plain(heading[1]) if heading else "",
        description=description(text),
        base_model=_first(fields.get("base_model", [])),
        licence=(_first(fields.get("license_name", [])) if licence == "other" else "") or licence,
        tags=distinct((tag for tag in map(plain, _texts(fields.get("tags", []))) if ":" not in tag), _MOST_TAGS),
        trigger_words=distinct(map(plain, _texts(fields.get("instance_prompt", []))), MOST_WORDS),
        example_prompts=prompts(_examples(fields.get("widget", []))),
    )
    return Hints(card, settings_in(text))


def _fields(lines: Iterable[str]) -> dict[str, list[str]]:
    """Each key at the margin with its lines: what stands behind it, then what stands below."""
    fields: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lines:
        if key := _KEY.match(line):
            current = fields.setdefault(key[1], [])
            current.append(key[2] or "")
        elif line.strip() and not line.lstrip().startswith("#"):
            current.append(line)
    return fields


def _texts(lines: Sequence[str]) -> Iterator[str]:
    """The texts of a field: one behind its key or in a block below, or those of a list in either form."""
    if not lines:
        return
    behind, below = lines[0].strip(), lines[1:]
    if behind.startswith("["):
        yield from map(_unquoted, " ".join([behind, *below]).strip("[] ").split(","))
    elif below and below[0].lstrip().startswith("- "):
        yield from (_unquoted(line.lstrip()[2:]) for line in below if line.lstrip().startswith("- "))
    else:
        yield _joined(behind, below)


def _first(lines: Sequence[str]) -> str:
    return next((line for line in map(plain, _texts(lines)) if line), "")


def _examples(lines: Sequence[str]) -> Iterator[str]:
    """The texts of the examples that a page shows, each an object of a list."""
    for place, line in enumerate(lines):
        if known := _EXAMPLE.match(line):
            below = takewhile(lambda one: _indent(one) > len(known[1]), lines[place + 1 :])
            yield _joined((known[2] or "").strip(), list(below))


def _joined(behind: str, below: Sequence[str]) -> str:
    """A text that may go on over the next lines."""
    return _unquoted(" ".join([*([] if _BLOCK.match(behind) else [behind]), *map(str.strip, below)]))


def _unquoted(text: str) -> str:
    bare = text.strip()
    if len(bare) > 1 and bare[0] == bare[-1] == "'":
        return bare[1:-1].replace("''", "'")
    if len(bare) > 1 and bare[0] == bare[-1] == '"':
        return re.sub(r"\\(.)", r"\1", bare[1:-1])
    return bare


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
