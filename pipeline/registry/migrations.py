"""The registry's tables. To change them, add an entry to `MIGRATIONS`; never change released entries."""

from __future__ import annotations

_FIRST = (
    # `name_key` and `words` are what is compared and searched, see `storing`; lists have a word in each line.
    """CREATE TABLE models (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, name_key TEXT NOT NULL, source TEXT NOT NULL,
        reference TEXT NOT NULL, kind TEXT NOT NULL, path TEXT NOT NULL, bytes INTEGER NOT NULL,
        family TEXT, precision TEXT, base_model TEXT, licence TEXT,
        trigger_words TEXT NOT NULL, tags TEXT NOT NULL, words TEXT NOT NULL,
        last_used TEXT, added_at TEXT NOT NULL,
        revision TEXT, branches TEXT NOT NULL, version_id INTEGER, model_id INTEGER,
        UNIQUE (reference, path))""",
    "CREATE INDEX models_by_name ON models (name_key)",
    "CREATE INDEX models_by_path ON models (path)",
    "CREATE INDEX models_by_version ON models (version_id) WHERE version_id IS NOT NULL",
    "CREATE INDEX models_by_model ON models (model_id) WHERE model_id IS NOT NULL",
    """CREATE TABLE files (
        model INTEGER NOT NULL REFERENCES models (id) ON DELETE CASCADE, name TEXT NOT NULL, path TEXT NOT NULL,
        bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
        sha256 TEXT, tensor_hash TEXT, claimed_sha256 TEXT, owned INTEGER NOT NULL,
        PRIMARY KEY (model, path))""",
    "CREATE INDEX files_by_sha256 ON files (sha256) WHERE sha256 IS NOT NULL",
    "CREATE INDEX files_by_tensors ON files (tensor_hash) WHERE tensor_hash IS NOT NULL",
    "CREATE INDEX files_by_claim ON files (claimed_sha256) WHERE claimed_sha256 IS NOT NULL",
    # What a scan saw of a file or folder, by sizes and times; `by` is the version that looked inside, and `why` says
    # for what it was refused.
    "CREATE TABLE scanned (path TEXT PRIMARY KEY, signature TEXT NOT NULL, by TEXT NOT NULL, why TEXT)",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST,)
"""Statements that bring a registry from each version to the next; the file's `user_version` counts those done."""
