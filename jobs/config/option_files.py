"""Option files read as plain data: what one says, and what it inherits, as far as Darkroom must know it itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import ConfigError


def read_option(path: Path, *, missing_ok: bool = False) -> dict[str, Any]:
    """One option file; empty where it is no mapping. Raises `ConfigError`."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        if missing_ok and isinstance(error, FileNotFoundError):
            return {}
        raise ConfigError(f"{path}: cannot be read as YAML: {str(error).splitlines()[0]}") from None
    return document if isinstance(document, dict) else {}


def read_in_order(
    option: str, folders: Sequence[Path], within: tuple[str, ...] = ()
) -> Iterator[tuple[str, dict[str, Any]]]:
    """An option file (`prompts/demo`) and those of its group that it inherits, each with its values; first the one that
    wins. `folders` are those that Hydra searches for options, in this order. `check_trust` must have read them."""
    path = next((path for folder in folders if (path := folder / f"{option}.yaml").is_file()), None)
    if path is None or option in within:  # Hydra reports a circle
        return
    status = path.stat()
    values = _read(path, status.st_mtime_ns, status.st_size)
    entries = [entry for entry in values.get("defaults") or () if isinstance(entry, str)]
    for entry in reversed(entries if "_self_" in entries else [*entries, "_self_"]):
        if entry == "_self_":
            yield option, values
            continue
        group, name = option.rpartition("/")[0], entry.removeprefix("optional ")
        yield from read_in_order(name[1:] if name[0] == "/" else f"{group}/{name}", folders, (*within, option))


@lru_cache(maxsize=256)
def _read(path: Path, _mtime_ns: int, _size: int) -> dict[str, Any]:
    """A mapping of plain YAML, as `check_trust` has found; it may be empty. A sweep asks for the same file again."""
    values = yaml.load(path.read_bytes().decode("utf-8-sig"), Loader=yaml.SafeLoader)
    return values if isinstance(values, dict) else {}
