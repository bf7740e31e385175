"""Fetches small files of a repository (configurations, vocabularies) into the store, verified by hash."""

from __future__ import annotations

import hashlib

from pipeline.hubs.answer_cache import kept
from pipeline.hubs.huggingface import get
from pipeline.hubs.query import Answer, answered
from pipeline.hubs.remote_models import RemoteFile
from pipeline.hubs.repository_files import MOST_SMALL_BYTES
from pipeline.hubs.results import Ok, Outcome, Problem
from pipeline.hubs.transport import Transport
from pipeline.registry.content import blob_path, suffix_of
from pipeline.registry.records import now
from pipeline.registry.store_folders import data_folder
from pipeline.storage.durable import write_whole
from pipeline.storage.user_folders import make_folder


def fetch_small(transport: Transport, file: RemoteFile, what: str) -> Outcome[str]:
    """Put a small file into the store and return its SHA-256. Raises `OSError` where the store cannot be written."""
    if file.sha256 and blob_path(file.sha256, suffix_of(file.name)).is_file():
        return Ok(file.sha256, now())
    before = kept(_kept_at(file))
    content = str(before.value).encode() if before else b""
    if not before or _wrong_hash(file, content):
        said = _fetched(transport, file, what, MOST_SMALL_BYTES)
        if not isinstance(said, Ok):
            return said
        content = said.value
    sha256 = hashlib.sha256(content).hexdigest()
    blob = blob_path(sha256, suffix_of(file.name))
    if not blob.is_file():
        make_folder(blob.parent, data_folder())
        write_whole(blob, content)
    return Ok(sha256, now())


def text_of(transport: Transport, file: RemoteFile, what: str, most_bytes: int) -> Outcome[str]:
    """The text of a small file, cached outside the store: `fetch_small` then need not request it again."""

    def fetch() -> Outcome[str]:
        said = _fetched(transport, file, what, most_bytes)
        return Ok(said.value.decode("utf-8", "replace"), said.at) if isinstance(said, Ok) else said

    return answered(_kept_at(file), what, str, fetch, None)


def git_blob(content: bytes) -> str:
    """The hash by which git, and so Hugging Face, identifies a small file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _fetched(transport: Transport, file: RemoteFile, what: str, most_bytes: int) -> Outcome[bytes]:
    """What a hub sends for a file, if that has its hash; asked for once more where it has not."""
    wrong: str | None = None
    for _ in range(2):
        answer = get(transport, "huggingface.file", file.url, what, most_bytes=most_bytes)
        if not isinstance(answer, Answer):
            return answer
        wrong = _wrong_hash(file, answer.body)
        if wrong is None:
            return Ok(answer.body, now())
    return Problem("refused", what, f"{file.name} is not what the hub said it is: {wrong}; try again later")


def _wrong_hash(file: RemoteFile, content: bytes) -> str | None:
    """Both hashes where they differ; None for the right content."""
    found, expected = hashlib.sha256(content).hexdigest(), file.sha256
    if expected is None:
        found, expected = git_blob(content), file.git_blob
    return None if found == expected else f"the downloaded file has the hash {found}, expected {expected}"


def _kept_at(file: RemoteFile) -> str:
    """The address under which a file's text is kept; its content, and not the place, decides."""
    return f"content:{file.sha256 or file.git_blob}"
