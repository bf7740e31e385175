"""In which words a model wants its prompts: what each convention adds for each family, from data files."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent

PHRASE_FAMILIES = ("sd15", "sdxl")
"""Families with CLIP alone, which read phrases, and have more conventions than one; all others read sentences."""

CLOSED = "closed"
"""The convention of the embedded model, whose texts and settings stay as they are."""


@dataclass(frozen=True, slots=True)
class Texts:
    """What a convention adds to the texts of one family; every tuple may be empty. `conventions.toml` says more.

    `contradicts`: the opposite of the prompt's medium goes into the negative prompt.
    """

    prefix: tuple[str, ...] = ()
    suffix: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    contradicts: bool = False
    defects: tuple[str, ...] = ()
    quality: tuple[str, ...] = ()


@functools.cache
def read_data(name: str) -> dict[str, Any]:
    """One of the data files beside this module, as TOML has it."""
    return tomllib.loads((FOLDER / name).read_text(encoding="utf-8"))


def conventions() -> tuple[str, ...]:
    """The names of all conventions, `CLOSED` among them."""
    return tuple(read_data("conventions.toml"))


@functools.cache
def lineage(convention: str) -> tuple[str, ...]:
    """A convention and those that it is a variant of, the most special one first; nothing for the empty name.

    Raises `KeyError` for a name that is no convention.
    """
    if not convention:
        return ()  # of a family that is not known
    above = read_data("conventions.toml")[convention].get("of")
    return (convention, *lineage(above)) if above else (convention,)


@functools.cache
def texts(convention: str, family: str | None) -> Texts:
    """What the convention adds for a family. Raises `KeyError` for no convention."""
    tables = [read_data("conventions.toml")[one] for one in lineage(convention)]
    own = tables[0].get("family", {}).get(family or "", {}) if tables else {}

    def said(key: str) -> Any:
        return next((table[key] for table in (own, *tables) if key in table), ())

    return Texts(
        prefix=tuple(said("prefix")),
        suffix=tuple(said("suffix")),
        own=tuple(said("own")),
        contradicts=bool(said("contradict")),
        defects=tuple(said("defects")),
        quality=tuple(said("quality")),
    )
