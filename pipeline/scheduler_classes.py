"""diffusers' scheduler classes without importing them: their options, read from the source of the installed version."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.storage.sqlite_files import CacheFile

_TABLE = "scheduler_classes (source TEXT, class_name TEXT, options TEXT, PRIMARY KEY (source, class_name))"

_NOT_FOR_PICTURES = re.compile(r"Inverse|RePaint|CogVideoX|Helios|Wuerstchen|UnCLIP|Piflow|MiniMax|FlowMap")


@functools.cache
def scheduler_classes() -> dict[str, tuple[str, ...]]:
    """The options of every scheduler class that can make pictures, in order.

    Reading them takes 0.2 s, so they are kept until diffusers' version or one of its files is another.
    """
    specification = importlib.util.find_spec("diffusers")
    if specification is None or not specification.submodule_search_locations:
        return {}
    folder = Path(next(iter(specification.submodule_search_locations))) / "schedulers"
    files = sorted(folder.glob("scheduling_*.py"))
    newest = max((file.stat().st_mtime_ns for file in files), default=0)
    source = f"{importlib.metadata.version('diffusers')} {len(files)} {newest} {folder}"
    cache = CacheFile(None, _TABLE)
    kept = cache.rows("SELECT class_name, options FROM scheduler_classes WHERE source = ?", (source,))
    if kept and all(isinstance(text, str) for row in kept for text in row):
        return {name: tuple(options.split(",")) for name, options in kept}
    found = dict(_read(files))
    insert = "INSERT OR REPLACE INTO scheduler_classes VALUES (?, ?, ?)"
    cache.change(
        ("DELETE FROM scheduler_classes", ()),
        *((insert, (source, name, ",".join(options))) for name, options in found.items()),
    )
    return found


def _read(files: list[Path]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for file in files:
        text = file.read_text(encoding="utf-8")
        if "flax" in file.name or "register_to_config" not in text:
            continue
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith("Scheduler"):
                options = _options(node)
                if (
                    options
                    and not _NOT_FOR_PICTURES.search(node.name)
                    and is_diffusion(options) | is_flow(node.name, options)
                ):
                    yield node.name, options


def is_diffusion(options: tuple[str, ...]) -> bool:
    """Whether a scheduler with these options takes a model's noise schedule."""
    return "beta_start" in options


def is_flow(class_name: str, options: tuple[str, ...]) -> bool:
    """Whether a scheduler takes steps along a flow: because it was made for it, or by an option.

    SA-Solver has the option, but not for all of its algorithms.
    """
    return class_name.startswith("FlowMatch") or ("use_flow_sigmas" in options and class_name != "SASolverScheduler")


def _options(node: ast.ClassDef) -> tuple[str, ...]:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return tuple(one.arg for one in (*item.args.args[1:], *item.args.kwonlyargs))
    return ()
