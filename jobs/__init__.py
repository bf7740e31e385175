"""Batches: from configuration files to images and their manifest, and commands on both.

    from jobs import search
    for row in search("outputs", "red house", where="steps >= 16", columns=("path", "prompt", "seed")):
        print(row["path"], row["seed"])

The names below are loaded when they are first used, since a run needs none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.archive.reindex import Reindexing, reindex
    from jobs.archive.search import search
    from jobs.archive.verify import Verification, verify
    from jobs.manifest.query import open_manifest


_HOMES = {
    "Reindexing": "archive.reindex",
    "Verification": "archive.verify",
    "open_manifest": "manifest.query",
    "reindex": "archive.reindex",
    "search": "archive.search",
    "verify": "archive.verify",
}

__all__ = ["Reindexing", "Verification", "open_manifest", "reindex", "search", "verify"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jobs' has no attribute {name!r}")
    return getattr(import_module(f"jobs.{_HOMES[name]}"), name)
