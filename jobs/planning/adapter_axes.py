"""Adapter keys as axes of a grid: `adapters.loras`, `adapters.loras.0.weight`, `init.image`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import fields
from glob import iglob
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter

from jobs.config.values import MAX_GRID
from pipeline.adapters.specs import AdapterSpecs, ControlNetSpec, EmbeddingSpec, InitSpec, IpAdapterSpec, LoraSpec

_KINDS: dict[str, type[LoraSpec | EmbeddingSpec | ControlNetSpec | IpAdapterSpec]] = {
    "loras": LoraSpec,
    "embeddings": EmbeddingSpec,
    "controlnets": ControlNetSpec,
    "ip_adapters": IpAdapterSpec,
}
_KEY = re.compile(r"adapters\.(?P<kind>[a-z_]+)(?:\.(?P<place>\d+)\.(?P<field>[a-z]+))?")
_GLOB = re.compile(r"^\s*glob\(\s*(.+?)\s*\)\s*$")

ADAPTER_KEYS = (
    *(f"adapters.{kind}" for kind in _KINDS),
    *(f"adapters.{kind}.0.{field}" for kind, spec in _KINDS.items() for field in (one.name for one in fields(spec))),
    *(f"init.{field}" for field in InitSpec.model_fields),
)
"""Every such key, with 0 for the place in the list."""


def is_adapter_key(key: str) -> bool:
    """Whether a grid key is an adapter key."""
    return re.sub(r"\.\d+\.", ".0.", key) in ADAPTER_KEYS


def adapter_value(key: str, value: Any) -> Any:
    """The value validated as in the configuration; raises `pydantic.ValidationError`."""
    group, _, name = key.partition(".")
    if group == "init":
        return _field(InitSpec, name, value)
    match = _KEY.fullmatch(key)
    assert match
    kind = match["kind"]
    if match["field"]:
        return _field(_KINDS[kind], match["field"], value)
    return AdapterSpecs.model_validate({kind: value}).model_dump()[kind]


def changed(adapters: AdapterSpecs, init: InitSpec, values: Sequence[tuple[str, Any]]) -> tuple[AdapterSpecs, InitSpec]:
    """The adapter lists with some values changed, in order. Raises ValueError for an index that a list lacks."""
    sets: dict[str, list[dict[str, Any]]] = adapters.model_dump()
    start: dict[str, Any] = init.model_dump()
    for key, value in values:
        group, _, name = key.partition(".")
        if group == "init":
            start[name] = value
            continue
        match = _KEY.fullmatch(key)
        assert match
        entries = sets[match["kind"]]
        if not match["field"]:
            sets[match["kind"]] = [dict(entry) for entry in value]
        elif int(match["place"]) < len(entries):
            entries[int(match["place"])][match["field"]] = value
        else:
            raise ValueError(f"grid.{key}: adapters.{match['kind']} has {len(entries)} entries, counted from 0")
    return AdapterSpecs.model_validate(sets), InitSpec.model_validate(start)


def matching_files(text: str) -> list[str] | None:
    """The files that match the text `glob(pattern)`, sorted; None if the text is not a `glob(...)`."""
    match = _GLOB.match(text)
    if not match:
        return None
    pattern = match[1].strip("'\"")
    # Not Path.glob: the pattern may begin at the root.
    found = sorted(filter(os.path.isfile, iglob(str(Path(pattern).expanduser()), recursive=True)))  # noqa: PTH207
    if not found:
        raise ValueError(f"{text!r}: matches no file (looked in {Path.cwd().name}/)")
    if len(found) > MAX_GRID:
        raise ValueError(f"{text!r}: matches {len(found):,} files, more than {MAX_GRID:,}")
    return found


def _field(spec: type, name: str, value: Any) -> Any:
    adapter: TypeAdapter[Any] = TypeAdapter(get_type_hints(spec, include_extras=True)[name])
    return adapter.validate_python(value)
