"""How a pipeline class takes texts, determined from the signatures of its `encode_prompt` and `__call__`."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TextInterface:
    """Names of the call's arguments for the results of `encode_prompt`, for a prompt and for a negative prompt.

    `returned` are the names of what `encode_prompt` returns, in order. `negative` is empty where guidance needs no text
    of its own. `separate`: a negative prompt is encoded by itself, as if it were a prompt.
    """

    returned: tuple[str, ...]
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    separate: bool


@functools.cache
def text_interface(pipeline_class: Any) -> TextInterface | None:
    """None for a pipeline whose texts can only be encoded within its call, since it hides some of what it passes on."""
    encode = getattr(pipeline_class, "encode_prompt", None)
    if encode is None:
        return None
    call = inspect.signature(pipeline_class.__call__).parameters
    if any(name.startswith("_") for name in inspect.signature(encode).parameters):
        return None
    returned = _returned_names(encode)
    positive = tuple(name for name in returned if name in call and not name.startswith("negative_"))
    together = tuple(name for name in returned if name in call and name.startswith("negative_"))
    alone = tuple(f"negative_{name}" for name in positive if f"negative_{name}" in call)
    asked_for = {name for name in call if "prompt" in name and ("embeds" in name or "mask" in name)}
    if not positive or asked_for - {*positive, *together, *alone}:
        return None
    return TextInterface(returned, positive, together or alone, separate=not together)


def _returned_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names in the tuple of a function's last return; empty where it returns something else."""
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    except (OSError, TypeError):
        return ()
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.FunctionDef)
    last = definition.body[-1]
    if not isinstance(last, ast.Return) or not isinstance(last.value, ast.Tuple):
        return ()
    names = [element.id for element in last.value.elts if isinstance(element, ast.Name)]
    return tuple(names) if len(names) == len(last.value.elts) else ()


@functools.cache
def parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a function of a pipeline class; cached, since reading them takes longer than the function."""
    return inspect.signature(function).parameters


@functools.cache
def defaults(function: Callable[..., Any]) -> Mapping[str, Any]:
    """The parameters of a function that have a default, with the default."""
    empty = inspect.Parameter.empty
    return {one.name: one.default for one in parameters(function).values() if one.default is not empty}
