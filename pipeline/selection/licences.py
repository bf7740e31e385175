"""What a licence says of commercial use, by a table of known names (`licences.toml`)."""

from __future__ import annotations

import re
import tomllib
from functools import lru_cache
from pathlib import Path

_LONGEST = 200
_PERMISSIONS = re.compile(r"(?<!no )\bcommercial use: ([\w, ]{1,100})")
_NO_COMMERCIAL_USE = re.compile(r"\bno commercial use\b")
_OF_PICTURES = frozenset({"image", "sell"})
"""CivitAI's words for selling pictures, and for selling the model, which includes it; others are for services."""


def commercial_use(licence: str | None) -> bool | None:
    """Whether pictures may be used for money; None where no licence is said or it is not known.

    `licence` is a name as hubs and cards write it: `apache-2.0`, `OpenRAIL++-M`, `FLUX.1 [dev] Non-Commercial`; or an
    author's permissions on CivitAI in our words (`pipeline.hubs.civitai_protocol.permissions`).
    """
    permissions = _PERMISSIONS.search(licence or "")
    if permissions:
        return bool(_OF_PICTURES & set(permissions[1].casefold().replace(",", " ").split()))
    if _NO_COMMERCIAL_USE.search(licence or ""):
        return False
    name = "-".join(re.findall(r"[a-z0-9.+]+", (licence or "")[:_LONGEST].casefold()))
    known, refused = _table()
    if any(part.strip("-") in name if len(part) > 4 else part in f"-{name}-" for part in refused):
        return False
    return True if name.removeprefix("other-").removesuffix("-license") in known or name in known else None


@lru_cache(maxsize=1)
def _table() -> tuple[frozenset[str], tuple[str, ...]]:
    said = tomllib.loads((Path(__file__).parent / "licences.toml").read_text(encoding="utf-8"))
    return frozenset(said["commercial"]), tuple(said["not_commercial"])
