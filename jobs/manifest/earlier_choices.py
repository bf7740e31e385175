"""What was chosen for the prompts of earlier images, so that a second run takes the same."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.manifest.query import stream
from pipeline.errors import LeakFound, ReadError
from pipeline.selection.choice import Choice, read_choice

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

# `selection` is canonical JSON, in which a text of the user's cannot hold an unescaped quotation mark.
_KEY = """regexp_extract(selection, '"key":"([0-9a-f]{64})"', 1)"""

_COLUMNS = ("selection", "model_sha256", "vae_sha256", "loras", "lora_sha256s")


@dataclass(frozen=True, slots=True)
class EarlierChoice:
    """The choice of an earlier image: `selection` as JSON, and the hashes of the weights that were taken."""

    selection: str
    choice: Choice
    model_sha256: str
    vae_sha256: str | None
    lora_sha256: dict[str, str]


def earlier_choices(output_dir: Path, keys: Collection[str]) -> dict[str, EarlierChoice]:
    """The latest choice of each of these keys that the manifest has; what cannot be read as one is left out.

    Raises `ReadError` for a damaged manifest.
    """
    if not keys or not (output_dir / "manifest").is_dir():
        return {}

    wanted = ", ".join(f"'{key}'" for key in keys)  # hexadecimal digits

    def select(connection: DuckDBPyConnection) -> DuckDBPyRelation:
        latest = ", ".join(f"max_by({column}, created_at)" for column in _COLUMNS)
        return connection.sql(
            f"SELECT {_KEY} AS key, {latest} FROM images WHERE selection IS NOT NULL AND {_KEY} IN ({wanted}) "
            f"AND error_kind IS DISTINCT FROM '{LeakFound.kind}' GROUP BY key"  # whose texts are no longer the user's
        )

    found = (row for rows in stream(output_dir, select, feedback=False) for row in rows)
    return {key: one for key, *values in found if (one := _choice(*values))}


def _choice(
    selection: str, model_sha256: str, vae_sha256: str | None, loras: list[str], lora_sha256s: list[str]
) -> EarlierChoice | None:
    try:
        choice = read_choice(json.loads(selection)["choice"])
    except (ReadError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return EarlierChoice(selection, choice, model_sha256, vae_sha256, dict(zip(loras, lora_sha256s, strict=False)))
