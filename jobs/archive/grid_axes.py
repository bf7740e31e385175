"""The axes of a grid of images: the columns that vary, their values in the order of the run's own grid, with labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from jobs.archive.asked_for import AskedFor
from jobs.manifest.schema import list_columns

MAX_TO_COME = 100
"""So many values of a column have a place before there is an image of them; with more, only those that have one."""

Value = Any
"""Of an axis: a number, a text, None, or a tuple of these for axes of several columns."""


@dataclass(frozen=True, slots=True)
class Axis:
    """What varies: `values` in order, each with its label, which begins with the axis' name."""

    name: str
    columns: tuple[str, ...]
    values: tuple[Value, ...]
    labels: tuple[str, ...]


def _number(value: object) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def labelled(name: str, value: str) -> str:
    """A value with the name of its column before it."""
    return f"{name} {value}"


def _plain(name: str) -> Callable[[Value], str]:
    return lambda value: labelled(name, "none" if value in (None, "") else _number(value))


def _adapters(name: str, none: str) -> Callable[[Value], str]:
    def label(value: Value) -> str:
        names, weights = value
        said = [one if weight is None else f"{one} {_number(weight)}" for one, weight in zip_longest(names, weights)]
        return labelled(name, " + ".join(said)) if said else none

    return label


def _several(name: str) -> Callable[[Value], str]:
    return lambda value: labelled(name, " + ".join("?" if one is None else _number(one) for one in value) or "none")


AXES: dict[str, tuple[tuple[str, ...], Callable[[Value], str]]] = {
    "model": (("model", "model_sha256"), lambda value: f"model {value[0]}"),
    "vae": (("vae",), _plain("vae")),
    "loras": (("loras", "lora_weights"), _adapters("loras", "no LoRA")),
    "embeddings": (("embeddings",), _several("embeddings")),
    "controlnets": (("controlnets", "controlnet_strengths"), _adapters("controlnets", "no ControlNet")),
    "controlnet_images": (("controlnet_images",), _several("controlnet_images")),
    "controlnet_preprocess": (("controlnet_preprocess",), _several("controlnet_preprocess")),
    "controlnet_starts": (("controlnet_starts",), _several("controlnet_starts")),
    "controlnet_ends": (("controlnet_ends",), _several("controlnet_ends")),
    "ip_adapters": (("ip_adapters", "ip_adapter_scales"), _adapters("ip_adapters", "no IP-Adapter")),
    "ip_adapter_images": (("ip_adapter_images",), _several("ip_adapter_images")),
    "init_image": (("init_image",), _plain("init_image")),
    "strength": (("strength",), _plain("strength")),
    "scheduler": (("scheduler",), _plain("scheduler")),
    "scheduler_options": (("scheduler_options",), _several("scheduler_options")),
    "step_cache": (("step_cache",), _plain("step_cache")),
    "steps": (("steps",), _plain("steps")),
    "guidance_scale": (("guidance_scale",), _plain("guidance_scale")),
    "size": (("width", "height"), lambda value: f"size {value[0]} x {value[1]}"),
    "clip_skip": (("clip_skip",), _plain("clip_skip")),
    "dtype": (("dtype",), _plain("dtype")),
    "quantization": (("quantization",), _plain("quantization")),
    "negative_prompt": (("negative_prompt",), _plain("negative_prompt")),
    "prompt": (("prompt",), lambda value: str(value)),
    "seed": (("seed",), _plain("seed")),
}
"""What can be an axis, by its name: the columns that it joins, and how a value is labelled.

In this order where the run says none: what is compared first, texts and seeds last. A prompt is long enough to need no
name before it.
"""

PART_OF = {
    "controlnet_images": "controlnets",
    "controlnet_preprocess": "controlnets",
    "controlnet_starts": "controlnets",
    "controlnet_ends": "controlnets",
    "ip_adapter_images": "ip_adapters",
    "strength": "init_image",
    "scheduler_options": "scheduler",
}
"""Axes that say more of what a column names; where each of its names has one value, as with an adapter and without,
they are none.
"""

COLUMNS = tuple(dict.fromkeys(column for columns, _ in AXES.values() for column in columns))


def value_of(row: Mapping[str, Any], columns: Sequence[str]) -> Value:
    """The value of a row on the axis of these columns."""
    values = tuple(_hashable(row, column) for column in columns)
    return values if len(values) > 1 else values[0]


def _hashable(row: Mapping[str, Any], column: str) -> Any:
    value = row[column]
    if value is None and column in list_columns():  # of a part that is older than the column
        return ()
    return tuple(value) if isinstance(value, list) else value


def axes_of(rows: Sequence[Mapping[str, Any]], asked: AskedFor, *, to_come: bool = False) -> list[Axis]:
    """An axis for all that varies among the rows. Those of the run's own grid come first, in its order; of the others
    those with numbers and names before prompts and seeds. With `to_come`, axes also have values that runs were asked
    for and have not made yet.
    """
    found = []
    for name, (columns, label) in AXES.items():
        values = dict.fromkeys(value_of(row, columns) for row in rows)
        if to_come:
            values |= dict.fromkeys(_to_come(columns, asked.order(columns)))
        if len(values) > 1 and (name not in PART_OF or _varies_within(rows, columns, PART_OF[name])):
            ordered = _ordered(list(values), asked.order(columns), joined=len(columns) > 1)
            labels = [label(value) for value in ordered]
            if name == "model":
                labels = _distinct(labels, ordered)
            found.append(Axis(name, columns, tuple(ordered), tuple(labels)))
    places = {column: place for place, column in enumerate(asked.columns)}
    return sorted(found, key=lambda axis: min(places.get(column, len(places)) for column in axis.columns))


def _to_come(columns: Sequence[str], wanted: Sequence[Value]) -> Sequence[Value]:
    """The values, if they are numbers or names that are in rows as in the grid, and not too many to look at."""
    parts = [value if isinstance(value, tuple) else (value,) for value in wanted]
    kind = str if columns == ("scheduler",) else (int, float)
    return wanted if len(wanted) <= MAX_TO_COME and all(isinstance(one, kind) for part in parts for one in part) else ()


def _varies_within(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], named: str) -> bool:
    """Whether rows with the same value in a column differ in these columns."""
    values: dict[Value, Value] = {}
    return any(
        values.setdefault(value_of(row, (named,)), value_of(row, columns)) != value_of(row, columns) for row in rows
    )


def _ordered(values: list[Value], order: Sequence[Value], *, joined: bool) -> list[Value]:
    """In the order that the run had, then numbers by size; texts as they came, each with its numbers. `joined`: a value
    is of several columns.
    """
    known = {value: place for place, value in enumerate(order)}
    came: dict[Value, int] = {}

    def size(value: Value) -> tuple[float, ...]:
        if value is None or isinstance(value, int | float):
            return (-1 if value is None else value,)
        if isinstance(value, tuple) and value and all(isinstance(one, int | float) for one in value):
            return value
        return (came.setdefault(value, len(came)),)

    def sizes(value: Value) -> list[tuple[float, ...]]:
        return [size(part) for part in (value if joined else (value,))]

    return sorted(values, key=lambda value: (known.get(value, len(known)), sizes(value)))


def _distinct(labels: list[str], values: Sequence[Value]) -> list[str]:
    """Two models may have one name: then the beginning of the hash tells them apart."""
    return [
        f"{label} ({sha256[:8]})" if labels.count(label) > 1 else label
        for label, (_, sha256) in zip(labels, values, strict=True)
    ]
