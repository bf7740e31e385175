"""Keys of adapters as axes of a grid: `adapters.loras`, `adapters.loras.0.weight`, `init.image`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from glob import iglob
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter

from jobs.config.sections import AdapterSets, ControlNet, Embedding, Init, IpAdapter, Lora
from jobs.config.values import MAX_GRID

_KINDS: dict[str, type[BaseModel]] = {
    "loras": Lora,
    "embeddings": Embedding,
    "controlnets": ControlNet,
    "ip_adapters": IpAdapter,
}
_KEY = re.compile(r"adapters\.(?P<kind>[a-z_]+)(?:\.(?P<place>\d+)\.(?P<field>[a-z]+))?")
_GLOB = re.compile(r"^\s*glob\(\s*(.+?)\s*\)\s*$")

ADAPTER_KEYS = (
    *(f"adapters.{kind}" for kind in _KINDS),
    *(f"adapters.{kind}.0.{field}" for kind, model in _KINDS.items() for field in model.model_fields),
    *(f"init.{field}" for field in Init.model_fields),
)
"""Every such key, with 0 for the place in the list."""


def is_adapter_key(key: str) -> bool:
    """Whether a key of the grid is one of these."""
    return re.sub(r"\.\d+\.", ".0.", key) in ADAPTER_KEYS


def adapter_value(key: str, value: Any) -> Any:
    """The value as the configuration would hold it; raises `pydantic.ValidationError`."""
    group, _, name = key.partition(".")
    if group == "init":
        return _field(Init, name, value)
    match = _KEY.fullmatch(key)
    assert match
    kind = match["kind"]
    if match["field"]:
        return _field(_KINDS[kind], match["field"], value)
    return [one.model_dump() for one in getattr(AdapterSets.model_validate({kind: value}), kind)]


def changed(adapters: AdapterSets, init: Init, values: Sequence[tuple[str, Any]]) -> tuple[AdapterSets, Init]:
    """The sets with some values changed, in order. Raises ValueError for a place that the list does not have."""
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
    return AdapterSets.model_validate(sets), Init.model_validate(start)


def matching_files(text: str) -> list[str] | None:
    """`glob(pattern)` as the files that it matches, sorted; None if the text is no such thing."""
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


def _field(model: type[BaseModel], name: str, value: Any) -> Any:
    field = model.model_fields[name]
    metadata: tuple[Any, ...] = tuple(field.metadata)
    kind: Any = Annotated[(field.annotation, *metadata)] if metadata else field.annotation
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    return adapter.validate_python(value)
