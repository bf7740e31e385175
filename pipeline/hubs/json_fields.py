"""Reading strangers' JSON: each value is of the type asked for, or empty; nothing is taken on trust."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.storage.foreign_names import plain

MOST_WORDS = 100
"""So many trigger words, tags or names are kept of one list."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


def parse_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that a body is; None for all else, however deep, long or broken it is."""
    value = _parsed(body)
    return value if isinstance(value, dict) else None


def parse_list(body: bytes) -> list[Any] | None:
    """The JSON list that a body is; None for all else."""
    value = _parsed(body)
    return value if isinstance(value, list) else None


def mapping(value: Any) -> Mapping[str, Any]:
    """An object, or an empty one."""
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects in a list; what else is in it is passed over."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def number(value: Any) -> int | None:
    """A whole number from 1 on that fits into 63 bits, as ids and sizes are."""
    return value if type(value) is int and 0 < value < 2**63 else None


def words(value: Any) -> tuple[str, ...]:
    """The texts in a list, or the one text there is, each as one printable line; no double ones."""
    parts: Iterable[Any] = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    lines = (plain(part) for _, part in zip(range(2 * MOST_WORDS), parts, strict=False))
    return tuple(dict.fromkeys(line for line in lines if line))[:MOST_WORDS]


def sha256_of(value: Any) -> str | None:
    """A SHA-256 in small letters."""
    digits = value.lower() if isinstance(value, str) else ""
    return digits if _SHA256.fullmatch(digits) else None


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
