"""Faults of a configuration in words: what, where, what was expected, the nearest right spelling."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, get_args

from pipeline.faults import NOT_TEXT, UNKNOWN, faults_of

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

MAX_FAULTS = 20
"""As many faults are shown; of a file with a wrong column, nobody wants to read 100,000."""


def fault_lines(error: ValidationError, model: type[BaseModel], where: str = "") -> Iterator[str]:
    """One line per fault: key, value, what was expected, the nearest right spelling."""
    for fault in faults_of(error):
        key = where + ".".join(str(part) for part in fault.location)
        if fault.kind in UNKNOWN:
            yield f"{key}: {unknown_key(model, fault.location)}"
            continue
        hint = ""
        if isinstance(fault.value, str) and fault.choices:
            near = nearest(fault.value, fault.choices)
            hint = near if "did you mean" in near else ""  # the message lists the choices already
        elif fault.kind == NOT_TEXT and fault.value is not None:
            hint = "; put it in quotes"  # YAML reads `no`, `1` and `1:30` as something else
        yield f"{key}: {fault.expected}{hint}{fault.got}"


def keys_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """The keys of the configuration at a place; none if it is not one of our mappings."""
    for part in location:
        field = model.model_fields.get(str(part))
        section = None if field is None else section_model(field.annotation)
        if section is None:
            return []
        model = section
    return list(model.model_fields)


def section_model(annotation: Any) -> type[BaseModel] | None:
    """The model of a section, which may be left out (`Section | None`); None for a key that is no section."""
    from pydantic import BaseModel

    models = [one for one in get_args(annotation) or [annotation] if one is not type(None)]
    only = models[0] if len(models) == 1 else None
    return only if isinstance(only, type) and issubclass(only, BaseModel) else None


def unknown_key(model: type[BaseModel], location: Sequence[int | str]) -> str:
    """What is wrong with a key that a configuration does not have, and the nearest one that it has.

    A key of this very name may stand elsewhere (`steps` is `sampling.steps`); else it was misspelt, or that one was.
    """
    *parents, last = map(str, location)
    siblings = keys_at(model, parents)
    others = {key: key.rpartition(".")[2] for key in _all_keys(model) if key.rpartition(".")[2] not in siblings}
    meant = [key for key, name in others.items() if name == last]
    if not meant and not difflib.get_close_matches(last, siblings, n=1, cutoff=0.7):
        close = difflib.get_close_matches(last, others.values(), n=1, cutoff=0.7)
        meant = [key for key, name in others.items() if name in close]
    if not meant:
        return f"unknown key{nearest(last, siblings)}"
    least = min(key.count(".") for key in meant)
    return f"unknown key; did you mean {' or '.join(repr(key) for key in meant if key.count('.') == least)}?"


def _all_keys(model: type[BaseModel], section: str = "") -> Iterator[str]:
    """Every key of a configuration, with those of its sections."""
    for name in keys_at(model, section.split(".") if section else []):
        key = f"{section}.{name}" if section else name
        yield key
        yield from _all_keys(model, key)


def nearest(word: str, choices: Sequence[str]) -> str:
    """The end of a message about an unknown word: the most similar choice, or all of them."""
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known are {', '.join(choices)}" if choices else ""


def first_faults(faults: Sequence[str]) -> list[str]:
    """The faults to show: all, or the first ones and how many more there are."""
    more = len(faults) - MAX_FAULTS
    return [*faults[:MAX_FAULTS], f"... and {more:,} more"] if more > 0 else list(faults)
