"""What runs were asked to make, as far as their `batch.yaml` says: the order of their grids, and combinations.

Output folders come from strangers too: files are bounded, and what is of another form is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jobs.archive.runs import MAX_BYTES, RUN_ID
from jobs.config.values import parse_range
from jobs.running.run_folder import BATCH, RUNS
from pipeline.schedulers import scheduler_name

MAX_RUNS = 100
"""So many runs are looked at, the latest first."""

_SAMPLING = ("steps", "guidance_scale", "width", "height", "scheduler", "clip_skip", "step_cache")
_COLUMNS = {
    **{f"sampling.{name}": name for name in _SAMPLING},
    "seed": "seed",
    "prompts.negative_prompt": "negative_prompt",
    "init.strength": "strength",
}
"""The column of a key of a grid, where it has the key's own values."""

_SHOWN_IN = {
    "sampling.scheduler_options": "scheduler_options",
    "prompts.prefix": "prompt",
    "prompts.suffix": "prompt",
    "init.image": "init_image",
    "adapters.loras": "loras",
    "adapters.loras.weight": "lora_weights",
    "adapters.embeddings": "embeddings",
    "adapters.controlnets": "controlnets",
    "adapters.controlnets.strength": "controlnet_strengths",
    "adapters.controlnets.image": "controlnet_images",
    "adapters.controlnets.preprocess": "controlnet_preprocess",
    "adapters.controlnets.start": "controlnet_starts",
    "adapters.controlnets.end": "controlnet_ends",
    "adapters.ip_adapters": "ip_adapters",
    "adapters.ip_adapters.scale": "ip_adapter_scales",
    "adapters.ip_adapters.image": "ip_adapter_images",
}
"""The column that shows what a key varies, by the key without its place in a list, where values are others there: names
of files, and those of all adapters together.
"""
_PLACE = re.compile(r"\.\d+\.")

_Allowed = dict[tuple[str, ...], set[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class AskedFor:
    """`columns` that the grids vary, in their order. Empty where no run says anything."""

    columns: tuple[str, ...] = ()
    _orders: tuple[tuple[tuple[str, ...], tuple[Any, ...]], ...] = ()
    _allowed: tuple[_Allowed, ...] = ()

    def order(self, columns: Sequence[str]) -> Sequence[Any]:
        """The values of these columns in the order in which they were asked for; empty if that is not known."""
        found = dict(self._orders).get(tuple(columns), ())
        return found if len(columns) > 1 else [value for (value,) in found]

    def includes(self, values: Mapping[str, Any]) -> bool | None:
        """Whether one of the runs was asked for these values of columns; None if no run is known."""
        if not self._allowed:
            return None
        return any(all(_agree(values, names, found) for names, found in one.items()) for one in self._allowed)


def _agree(values: Mapping[str, Any], names: tuple[str, ...], found: set[tuple[Any, ...]]) -> bool:
    known = [place for place, name in enumerate(names) if name in values]
    wanted = tuple(values[names[place]] for place in known)
    return not known or any(tuple(one[place] for place in known) == wanted for one in found)


def asked_for(output_dir: Path, run_ids: Iterable[str]) -> AskedFor:
    """What these runs were asked for."""
    columns: dict[str, None] = {}
    orders: dict[tuple[str, ...], dict[Any, None]] = {}
    allowed = []
    for run_id in sorted({*run_ids}, reverse=True)[:MAX_RUNS]:
        for config in _configs(output_dir, run_id):
            one: _Allowed = {}
            varied: set[str] = set()
            for names, values in _varied(config):
                columns.update(dict.fromkeys(names))
                varied.update(names)
                if values:
                    one[names] = {*values}
                    orders.setdefault(names, {}).update(dict.fromkeys(values))
                for place, name in enumerate(names):
                    orders.setdefault((name,), {}).update(dict.fromkeys((value[place],) for value in values))
            one |= {(name,): {*values} for name, values in _decided(config) if name not in varied}
            allowed.append(one)
    return AskedFor(tuple(columns), tuple((key, tuple(found)) for key, found in orders.items()), tuple(allowed))


def _configs(output_dir: Path, run_id: str) -> Iterator[dict[str, Any]]:
    path = output_dir / RUNS / run_id / BATCH
    try:
        if not RUN_ID.fullmatch(run_id) or path.stat().st_size > MAX_BYTES:
            return
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        documents = list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=loader))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return
    yield from (document for document in documents if isinstance(document, dict))


def _varied(config: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], list[tuple[Any, ...]]]]:
    """Columns that vary together, and their values, of each axis of the grid; without values, where these are not what
    the columns show."""
    grid = config.get("grid")
    for key, said in grid.items() if isinstance(grid, dict) else ():
        keys = str(key).split("+")
        names = tuple(dict.fromkeys(column for one in keys for column in _columns(one)))
        values = _values(said)
        tuples = [tuple(one) if len(names) > 1 and isinstance(one, list) else (one,) for one in values]
        if names:
            told = all(one in _COLUMNS for one in keys)
            plain = told and all(len(one) == len(names) and all(map(_is_plain, one)) for one in tuples)
            yield names, [tuple(map(_as_in_rows, names, one)) for one in tuples] if plain else []


def _as_in_rows(column: str, value: Any) -> Any:
    """A grid has schedulers in any spelling."""
    if column == "scheduler" and isinstance(value, str):
        with suppress(ValueError):
            return scheduler_name(value)
    return value


def _columns(key: str) -> Sequence[str]:
    """The columns that show what a key of a grid varies: of a whole list of adapters all of theirs."""
    if key in _COLUMNS:
        return [_COLUMNS[key]]
    plain = _PLACE.sub(".", key)
    if plain != key:  # a field of one adapter; those without a column are its file and its name
        return [_SHOWN_IN[known] for known in (plain, plain.rpartition(".")[0]) if known in _SHOWN_IN][:1]
    return [column for known, column in _SHOWN_IN.items() if known == key or known.startswith(f"{key}.")]


def _decided(config: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    """Columns of which the configuration itself says the values, where no line of its prompts can say another."""
    sections = {name: one for name in ("sampling", "model") if isinstance(one := config.get(name), dict)}
    lines = (config.get("prompts") or {}).get("lines") if isinstance(config.get("prompts"), dict) else None
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        return
    for name in _SAMPLING:
        if _is_plain(value := sections.get("sampling", {}).get(name)) and value is not None:
            yield name, [(value,)]
    if isinstance(model := sections.get("model", {}).get("name"), str):
        yield "model", [(model,)]
    if seeds := _values(config.get("seeds")):
        yield "seed", [(seed,) for seed in seeds if _is_plain(seed)]


def _values(said: object) -> Sequence[Any]:
    if isinstance(said, str):
        try:
            return parse_range(said) or ()
        except ValueError:
            return ()
    return said if isinstance(said, list) else ()


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)
