"""Restricts references in values: other keys of the configuration, and nothing from outside of it.

Hydra would resolve `${oc.env:HF_TOKEN}` in a prompt or a file's name, and the token would then stand in every image. So
all texts are checked before they are resolved, but those that only say where something lies or how a hub is reached.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from jobs.config.faults import first_faults
from pipeline.errors import ConfigError, UntrustedConfig

_Path: TypeAlias = tuple[str | int, ...]

_PLACES = re.compile(
    r"output\.dir | model\.(source|vae|config) | memory\.tiny_vae | init\.image | hub\.\w+ "
    r"| adapters\.\w+\[\d+\]\.(source|image|encoder)", re.VERBOSE
)  # fmt: skip
"""Keys that may take values from the environment: neither images nor names nor reports show them."""

MAX_REACHED = 10_000
"""So many references may be followed through others; each is resolved anew, and nine lines can ask for billions."""

MAX_WRITTEN = 10_000_000
"""So many characters may references stand for, all together."""

# An odd number of backslashes before it makes `${` plain text, as in OmegaConf.
_INTERPOLATION = re.compile(r"(?<!\\)(?:\\\\)*\$\{(?P<inside>[^{}]*)(?P<end>[{}]|$)")
_PLAIN_PATH = re.compile(r"\s*(?P<dots>\.*)(?P<path>[\w-]+(?:\.[\w-]+|\[[\w-]+\])*)\s*")
_INDEX = re.compile("[0-9]{1,9}")


def check_interpolations(raw: Mapping[str, Any]) -> None:
    """Refuse texts that could bring the environment, or another resolver's value, into images and names.

    `raw` is a whole composed configuration as plain containers, interpolations not resolved. References to
    other keys (`${name}`) are followed; what they reach must be free of resolvers too. Raises
    `UntrustedConfig` with all faults, and `ConfigError` for references that stand for too much to be written out.
    """
    _check_extent(raw)
    faults = []
    for path, text in _texts(raw, ()):
        reason = None if _PLACES.fullmatch(_shown(path)) else _resolver_reached(text, path, raw, set())
        if reason:
            faults.append(f"{_shown(path)}: {reason}; write the text itself (or \\${{ for the signs ${{)")
    if faults:
        raise UntrustedConfig(first_faults(faults))


def _check_extent(raw: Mapping[str, Any]) -> None:
    known: dict[_Path, tuple[int, int]] = {}
    reached = written = 0
    for path, text in _texts(raw, ()):
        if "${" in text:
            direct = len(_targets(text, path))
            followed, characters = _extent(path, text, raw, known)
            reached, written = reached + followed - direct, written + characters - len(text)
            if reached > MAX_REACHED or written > MAX_WRITTEN:
                raise ConfigError(
                    f"{_shown(path)}: refers to others (${{...}}) that refer to others, for more than "
                    f"{MAX_REACHED:,} values or {MAX_WRITTEN:,} characters; write the text itself"
                )


def _extent(path: _Path, text: str, raw: Mapping[str, Any], known: dict[_Path, tuple[int, int]]) -> tuple[int, int]:
    """How many references are followed for the text at this path, and how many characters it then has, at most."""
    if path not in known:
        known[path] = 0, 0  # a circle, which Hydra reports
        reached, written = 0, len(text)
        for target in _targets(text, path):
            reached += 1
            for inner_path, inner in _texts(_node_at(raw, target), target):
                further, characters = _extent(inner_path, inner, raw, known)
                reached, written = reached + further, written + characters
        known[path] = reached, written
    return known[path]


def _targets(text: str, path: _Path) -> list[_Path]:
    """The paths that the text at `path` refers to, also as the argument of a resolver."""
    if "${" not in text:
        return []
    inside = [match["inside"] for match in _INTERPOLATION.finditer(text)]
    plain = [
        match for one in inside for word in one.split(",") if (match := _PLAIN_PATH.fullmatch(word.rpartition(":")[2]))
    ]
    return [_target(match, path) for match in plain]


def _target(reference: re.Match[str], path: _Path) -> _Path:
    """The path that a reference in the text at `path` means."""
    steps = [int(step) if _INDEX.fullmatch(step) else step for step in re.findall(r"[\w-]+", reference["path"])]
    # One dot is the mapping or list that the text stands in, each further dot its parent.
    start: _Path = path[: len(path) - len(reference["dots"])] if reference["dots"] else ()
    return (*start, *steps)


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
        target = _target(plain, path)
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
