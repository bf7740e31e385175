"""The `grid:` of a batch: axes whose values are combined; keys joined by `+` vary together.

    grid:
      sampling.steps: range(10, 40, 10)
      sampling.width+sampling.height: [[64, 64], [96, 64]]
      seed: [1, 2]

is 3 x 2 x 2 combinations, the last axis changing fastest. Adapters and the picture to start from are axes as well:
`adapters.loras` (whole lists), `adapters.loras.0.weight` (one value of one of them), `init.image`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from jobs.config.faults import fault_lines, first_faults, nearest
from jobs.config.sections import Sampling
from jobs.config.values import MAX_GRID, Seeds, parse_range
from jobs.planning.adapter_axes import ADAPTER_KEYS, adapter_value, is_adapter_key, matching_files
from pipeline.errors import ConfigError
from pipeline.ranges import STRICT, Seed, Text


class _PromptKeys(BaseModel):
    """What a grid may vary of a prompt set. `tags` stand in place of the set's own."""

    model_config = STRICT

    negative_prompt: Text = ""
    prefix: Text = ""
    suffix: Text = ""
    tags: list[Text] = Field(default=[])


_SEED: TypeAdapter[int] = TypeAdapter(Seed)
_SEEDS: TypeAdapter[Sequence[int]] = TypeAdapter(Seeds)

KEYS = (
    *(f"sampling.{key}" for key in Sampling.model_fields),
    "seed",
    *(f"prompts.{key}" for key in _PromptKeys.model_fields),
)
"""Every key that a grid may vary, besides those of adapters."""


@dataclass(frozen=True, slots=True)
class Combination:
    """One point of the grid. `sampling` and `adapters` have the keys that it sets; None leaves a value to the batch."""

    sampling: Mapping[str, Any]
    seed: int | None = None
    negative_prompt: str | None = None
    prefix: str | None = None
    suffix: str | None = None
    tags: tuple[str, ...] | None = None
    adapters: tuple[tuple[str, Any], ...] = ()


class Grid:
    """All combinations of a `grid:` mapping, created on demand; without a grid a single empty one.

    Raises `ConfigError` with all faults: unknown keys, values out of range, more than `MAX_GRID`
    combinations.
    """

    def __init__(self, grid: Mapping[str, Any] | None) -> None:
        faults: list[str] = []
        self._axes: dict[tuple[str, ...], Sequence[Any]] = {}
        for name, values in _flat(grid or {}):
            keys = tuple(key.strip() for key in name.split("+"))
            faults += [f"grid.{name}: {fault}" for fault in self._key_faults(keys)]
            try:
                self._axes[keys] = _axis(keys, values)
            except ValueError as error:
                faults.append(f"grid.{name}: {error}")
        self._count = math.prod(len(values) for values in self._axes.values())
        if self._count > MAX_GRID:
            sizes = " x ".join(f"{len(values):,}" for values in self._axes.values())
            faults.append(f"grid: {sizes} is {self._count:,} combinations, more than {MAX_GRID:,}; take values out")
        elif not faults:
            for keys in self._axes:
                self._axes[keys] = _checked(keys, self._axes[keys], faults)
        if faults:
            raise ConfigError(first_faults(faults))

    def varies(self, key: str) -> bool:
        """Whether the grid sets this key."""
        return any(key in keys for keys in self._axes)

    def values(self, key: str) -> list[Any]:
        """The values that the grid gives this key, step by step."""
        axes = ((keys, steps) for keys, steps in self._axes.items() if key in keys)
        return [_step(keys, step)[keys.index(key)] for keys, steps in axes for step in steps]

    def adapter_combinations(self) -> Iterator[tuple[tuple[str, Any], ...]]:
        """The distinct combinations of adapter keys in the grid."""
        axes = {keys: steps for keys, steps in self._axes.items() if any(is_adapter_key(key) for key in keys)}
        for steps in product(*axes.values()):
            yield tuple(pair for pair in _pairs(axes, steps) if is_adapter_key(pair[0]))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Combination]:
        for steps in product(*self._axes.values()):
            yield self._combination(steps)

    def __getitem__(self, index: int) -> Combination:
        if not 0 <= index < self._count:
            raise IndexError(index)
        steps = []
        for values in reversed(self._axes.values()):
            index, own = divmod(index, len(values))
            steps.append(values[own])
        return self._combination(reversed(steps))

    def _combination(self, steps: Iterable[Any]) -> Combination:
        sampling: dict[str, Any] = {}
        others: dict[str, Any] = {}
        adapters: list[tuple[str, Any]] = []
        for key, value in _pairs(self._axes, steps):
            group, _, name = key.rpartition(".")
            if is_adapter_key(key):
                adapters.append((key, value))
            else:
                (sampling if group == "sampling" else others)[name] = value
        return Combination(sampling, adapters=tuple(adapters), **others)

    def _key_faults(self, keys: tuple[str, ...]) -> Iterator[str]:
        for place, key in enumerate(keys):
            if key not in KEYS and not is_adapter_key(key):
                yield f"{key}: unknown key{nearest(key, (*KEYS, *ADAPTER_KEYS))}"
            elif self.varies(key) or key in keys[:place]:
                yield f"{key} is varied twice; join keys that belong together with +"


def _step(keys: tuple[str, ...], step: Any) -> Sequence[Any]:
    """The values of a step. On an axis of one key each is its value itself: seeds may be a range of millions."""
    return step if len(keys) > 1 else (step,)


def _pairs(axes: Iterable[tuple[str, ...]], steps: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Every key with its value at one point of the grid."""
    for keys, step in zip(axes, steps, strict=True):
        yield from zip(keys, _step(keys, step), strict=True)


def _flat(grid: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """`grid.sampling.steps=...` on the command line makes `{sampling: {steps: ...}}`; it means the same."""
    for key, values in grid.items():
        if isinstance(values, Mapping) and str(key).partition(".")[0] in ("sampling", "prompts", "adapters", "init"):
            yield from _flat({f"{key}.{inner}": inner_values for inner, inner_values in values.items()})
        else:
            yield str(key), values


def _axis(keys: tuple[str, ...], values: Any) -> Sequence[Any]:
    """The steps of an axis, as in `_step`, each with a value for every key; not yet checked one by one."""
    if keys == ("seed",):
        try:
            return _SEEDS.validate_python(values)
        except ValidationError as error:
            raise ValueError(_reason(error)) from None
    if isinstance(values, str):
        values = matching_files(values) if keys[0].endswith(".image") else parse_range(values)
    if not isinstance(values, Sequence):
        raise ValueError("must be a list of values or range(start, stop, step)")
    if not values:
        raise ValueError("needs at least one value")
    if len(keys) == 1:
        return values
    for place, row in enumerate(values):
        if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != len(keys):
            raise ValueError(
                f"step {place} must be a list of {len(keys)} values, for {' and '.join(keys)} (got {row!r})"
            )
    return [tuple(row) for row in values]


def _checked(keys: tuple[str, ...], steps: Sequence[Any], faults: list[str]) -> Sequence[Any]:
    """The steps with their values as the configuration would hold them; faults are added to the list."""
    if keys == ("seed",):
        return steps
    checked: list[Any] = []
    for place, step in enumerate(steps):
        values = []
        for column, (key, value) in enumerate(zip(keys, _step(keys, step), strict=True)):
            where = f"grid.{'+'.join(keys)}[{place}]" + (f"[{column}]" if len(keys) > 1 else "")
            try:
                values.append(_value(key, value))
            except ValidationError as error:
                faults.append(f"{where}: {_reason(error)}")
            except ValueError as error:
                faults.append(f"{where}: {error}")
        checked += [tuple(values)] if len(keys) > 1 else values
    return checked


def _value(key: str, value: Any) -> Any:
    group, _, name = key.rpartition(".")
    if is_adapter_key(key):
        return adapter_value(key, value)
    if value is None:
        raise ValueError("must have a value; null leaves nothing to vary")
    if group == "sampling":
        return getattr(Sampling.model_validate({name: value}), name)
    if key == "seed":
        return _SEED.validate_python(value)
    checked = getattr(_PromptKeys.model_validate({name: value}), name)
    return checked if isinstance(checked, str) else tuple(checked)


def _reason(error: ValidationError) -> str:
    """A fault without its key, which is that of the grid."""
    return next(fault_lines(error, Sampling)).partition(": ")[2]
