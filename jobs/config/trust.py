"""Refuses configuration files that configure Hydra, name code or programs, or bring the environment into a picture.

Hydra runs callbacks and opens log files that a chosen option file asks for, before our own code starts, and
`${oc.env:HF_TOKEN}` in a prompt would stand in every image. So option files are read here first, as plain
YAML, and refused if they reach for more than their own group. A configuration folder still deserves the trust
that one gives to a script; prompts from strangers belong in .txt, .csv or .jsonl files, which are never
composed.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import yaml

from jobs.config.composition import OVERLAYS
from jobs.config.faults import first_faults
from pipeline.errors import ConfigError, UntrustedConfig

WAY_OUT = "prompts from strangers belong in a .txt, .csv or .jsonl file (prompts.file)"

OWN_GROUP = "local"
"""The group of settings of this machine: in the user's own folders, it alone may say what a run starts at its end."""

PROGRAM_KEY = "on_end"

MAX_ALIASED = 10_000
"""So many values may a file have through aliases and merges. Hydra writes each out; nine lines can ask for billions."""

_HEADER = re.compile(r"\s*#\s*@package\s+(.*)")
_DEFAULT = re.compile(r"(?:(?:optional|override) )*/?(?!hydra\b)[A-Za-z_][\w-]*(?:/[\w-]+)*|_self_")
_OPTION = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w.-]*)*")
_PLAIN_TAGS = {
    f"tag:yaml.org,2002:{kind}"
    for kind in ("null", "bool", "int", "float", "str", "seq", "map", "merge", "timestamp", "value")
}
_Fault: TypeAlias = tuple[int, str]  # line, what is wrong


def check_trust(folders: Sequence[Path], primary: Path, own: Sequence[Path] = ()) -> None:
    """Refuse option files that configure Hydra or name code or programs. Call before Hydra reads anything.

    `folders` are the configuration folders: ours, the user's own, those of `--config-dir`. Every .yaml and .yml file
    in them but `primary` is read. `own` are those that nobody has handed on, besides the folder of `primary`. Raises
    `UntrustedConfig` with all faults, or `ConfigError` where the faults are only broken YAML and options that Hydra
    would silently ignore.
    """
    untrusted: list[str] = []
    broken: list[str] = []
    shipped: dict[str, Path] = {}
    owned = {folder.resolve() for folder in (primary.parent, *own)}
    for folder in dict.fromkeys(folder.resolve() for folder in folders):
        paths, twice = _yaml_files(folder)
        untrusted += [
            f"{link}: is the same folder as {first}, so its options would be of two groups; copy the folder instead"
            for link, first in twice
        ]
        for path in paths:
            option = path.relative_to(folder)
            if (first := shipped.setdefault(option.as_posix(), path)) is not path:
                broken.append(f"{path}: is never read, since {first} has the same name and comes first; rename it")
            if primary.exists() and path.exists() and path.samefile(primary):
                continue
            try:
                faults = list(_faults(path, option, is_own=folder in owned and option.parts[0] == OWN_GROUP))
            except ConfigError as error:
                broken.extend(error.faults)
            else:
                untrusted.extend(f"{path}:{line}: {fault}; {WAY_OUT}" for line, fault in faults)
    if untrusted:
        raise UntrustedConfig(first_faults(untrusted + broken))
    if broken:
        raise ConfigError(first_faults(broken))


def _yaml_files(folder: Path) -> tuple[list[Path], list[tuple[Path, Path]]]:
    """All YAML files below a folder, behind links too, since Hydra follows them; and links to what was there already.

    What is allowed in a file depends on its group, and through such a link it would have two.
    """
    found: list[Path] = []
    twice: list[tuple[Path, Path]] = []
    seen: dict[str, Path] = {}
    for parent, folders, files in os.walk(folder, followlinks=True):
        first = seen.setdefault(os.path.realpath(parent), Path(parent))
        if first != Path(parent):
            twice.append((Path(parent), first))
            folders.clear()
            continue
        folders.sort()
        found += (Path(parent, name) for name in sorted(files) if name.lower().endswith((".yaml", ".yml")))
    return found, twice


def faults_of_text(text: str, option: str) -> list[str]:
    """What would be refused in an option file of the user's own with this text. Raises `yaml.YAMLError`."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return [fault for _, fault in _faults_within(text, root, Path(option), is_own=False)]


def _faults(path: Path, option: Path, *, is_own: bool) -> Iterator[_Fault]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        # The same reader as OmegaConf's, in Python: two readers that differ would leave a gap to slip
        # through.
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 (byte {error.start:,}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deep for YAML") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{place}: is not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {str(error).splitlines()[0]}") from None
    yield from _faults_within(text, root, option, is_own=is_own)


def _faults_within(text: str, root: yaml.Node | None, option: Path, *, is_own: bool) -> Iterator[_Fault]:
    if option.parts[0] == "hydra":
        yield 1, "is an option of Hydra's own groups"
    yield from _header_faults(text, option)
    if root is not None:
        sizes: dict[int, float] = {}
        if _written_out(root, sizes) - len(sizes) > MAX_ALIASED:
            yield 1, f"has aliases (`*name`, `<<`) that expand to more than {MAX_ALIASED:,} further values"
        yield from _node_faults(root, set(), is_own=is_own)
        yield from _top_faults(root)


def _written_out(node: yaml.Node, sizes: dict[int, float]) -> float:
    """How many nodes this one is without aliases; infinitely many if it has one of itself. `sizes` are those known."""
    if id(node) not in sizes:
        sizes[id(node)] = math.inf
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        sizes[id(node)] = 1 + sum(_written_out(part, sizes) for part in inner)
    return sizes[id(node)]


def _header_faults(text: str, option: Path) -> Iterator[_Fault]:
    """Package headers, looked for on every line: stricter than Hydra, which reads 512 characters."""
    for number, line in enumerate(text.splitlines(), start=1):
        match = _HEADER.match(line)
        if match and not (match[1].strip() == "_global_" and option.parts[0] in OVERLAYS):
            header = f"the header `@package {match[1].strip()}`"
            yield (
                number,
                f"{header} moves the file; only `# @package _global_` in experiment/, local/ or profile/ is allowed",
            )


def _node_faults(node: yaml.Node, seen: set[int], *, is_own: bool) -> Iterator[_Fault]:
    """Refused keys and tags, at any depth: an anchor or a merge (`<<`) could lift them to the top."""
    if id(node) in seen:
        return
    seen.add(id(node))
    line = node.start_mark.line + 1
    if node.tag not in _PLAIN_TAGS:
        yield line, f"has the tag {node.tag.replace('tag:yaml.org,2002:', '!!')}; only plain YAML is read"
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _node_faults(item, seen, is_own=is_own)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _key_faults(key, value, is_own=is_own)
            yield from _node_faults(key, seen, is_own=is_own)
            yield from _node_faults(value, seen, is_own=is_own)


def _key_faults(key: yaml.Node, value: yaml.Node, *, is_own: bool) -> Iterator[_Fault]:
    line = key.start_mark.line + 1
    if not isinstance(key, yaml.ScalarNode):
        return
    name = key.value.strip()
    if re.match(r"hydra\b", name):
        yield line, f"the key {name!r} configures Hydra itself"
    elif name.endswith("_target_"):
        yield line, f"the key {name!r} names code to be run"
    elif name == PROGRAM_KEY and not is_own:
        own = "local/default.yaml in your own folder or in conf/, or on the command line"
        yield line, f"the key {name!r} names a program to be started, which is yours alone to say, in {own}"
    elif name == "defaults" and isinstance(value, yaml.SequenceNode):
        for entry in value.value:
            yield from _default_faults(entry)


def _default_faults(entry: yaml.Node) -> Iterator[_Fault]:
    """An entry of a defaults list: plain groups and options of our own folders, and nothing else."""
    line = entry.start_mark.line + 1
    pairs = entry.value if isinstance(entry, yaml.MappingNode) else [(entry, None)]
    for key, value in pairs:
        if not isinstance(key, yaml.ScalarNode) or not _DEFAULT.fullmatch(key.value):
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            yield line, f"the defaults entry {name!r} is not a plain group such as `override /memory`"
        for option in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            if option is None or option.tag.endswith(":null"):
                continue
            if not isinstance(option, yaml.ScalarNode) or not _OPTION.fullmatch(option.value):
                yield option.start_mark.line + 1, f"the defaults entry {key.value!r} does not name an option"


def _top_faults(root: yaml.Node) -> Iterator[_Fault]:
    if not isinstance(root, yaml.MappingNode):
        yield root.start_mark.line + 1, "is not a mapping of keys to values"
        return
    names: set[str] = set()
    for key, value in root.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else ""
        line = key.start_mark.line + 1
        if name in names and name != "<<":
            yield line, f"the key {name!r} is there twice"
        names.add(name)
        if name == "defaults" and not isinstance(value, yaml.SequenceNode):
            yield line, "the top-level key 'defaults' is Hydra's list of options and must be a list"
