"""What a value may refer to: other keys of the configuration, and nothing from outside of it.

Hydra would resolve `${oc.env:HF_TOKEN}` in a prompt or a file's name, and the token would then stand in every image. So
all texts are checked before they are resolved, but those that only say where something lies or how a hub is reached.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from jobs.config.faults import first_faults
from pipeline.errors import UntrustedConfig

_Path: TypeAlias = tuple[str | int, ...]

_PLACES = re.compile(
    r"output\.dir | model\.(source|vae|config) | memory\.tiny_vae | init\.image | hub\.\w+ "
    r"| adapters\.\w+\[\d+\]\.(source|image|encoder)", re.VERBOSE
)  # fmt: skip
"""Keys that may take values from the environment: neither images nor names nor reports show them."""

# An odd number of backslashes before it makes `${` plain text, as in OmegaConf.
_INTERPOLATION = re.compile(r"(?<!\\)(?:\\\\)*\$\{(?P<inside>[^{}]*)(?P<end>[{}]|$)")
_PLAIN_PATH = re.compile(r"\s*(?P<dots>\.*)(?P<path>[\w-]+(?:\.[\w-]+|\[[\w-]+\])*)\s*")
_INDEX = re.compile("[0-9]{1,9}")


def check_interpolations(raw: Mapping[str, Any]) -> None:
    """Refuse texts that could carry the environment, or anything else a resolver gives, into images and names.

    `raw` is a whole composed configuration as plain containers, interpolations not resolved. References to
    other keys (`${name}`) are followed; what they reach must be free of resolvers too. Raises
    `UntrustedConfig` with all faults.
    """
    faults = []
    for path, text in _texts(raw, ()):
        reason = None if _PLACES.fullmatch(_shown(path)) else _resolver_reached(text, path, raw, set())
        if reason:
            faults.append(f"{_shown(path)}: {reason}; write the text itself (or \\${{ for the signs ${{)")
    if faults:
        raise UntrustedConfig(first_faults(faults))


def _texts(node: Any, path: _Path) -> Iterator[tuple[_Path, str]]:
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _texts(value, (*path, key))
    elif isinstance(node, Sequence):
        for index, value in enumerate(node):
            yield from _texts(value, (*path, index))


def _resolver_reached(text: str, path: _Path, raw: Mapping[str, Any], seen: set[_Path]) -> str | None:
    """Why a text may not be used: the resolver it reaches, and through which key; None for a harmless one."""
    if "${" not in text:
        return None
    for match in _INTERPOLATION.finditer(text):
        plain = _PLAIN_PATH.fullmatch(match["inside"]) if match["end"] == "}" else None
        if plain is None:
            asked = f"${{{match['inside'][:40]}"
            return f"uses {asked}...}}; only plain references such as ${{name}} are taken here"
        steps = [int(step) if _INDEX.fullmatch(step) else step for step in re.findall(r"[\w-]+", plain["path"])]
        # One dot is the mapping or list that the text stands in, each further dot its parent.
        start: _Path = path[: len(path) - len(plain["dots"])] if plain["dots"] else ()
        target = (*start, *steps)
        if target in seen:
            continue
        seen.add(target)
        for inner_path, inner in _texts(_node_at(raw, target), target):
            if reason := _resolver_reached(inner, inner_path, raw, seen):
                return f"refers to {_shown(inner_path)}, which {reason}"
    return None


def _node_at(raw: Any, path: _Path) -> Any:
    """The node with this path; None where there is none, which Hydra reports itself."""
    for step in path:
        if isinstance(raw, Mapping):
            raw = raw.get(step, raw.get(str(step)))
        elif isinstance(raw, Sequence) and not isinstance(raw, str) and isinstance(step, int):
            raw = raw[step] if step < len(raw) else None
        else:
            return None
    return raw


def _shown(path: _Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")
