"""Configurations and vocabularies of a repository: fetched whole, checked by their hash, put into the store."""

from __future__ import annotations

import hashlib
import os
import uuid

from pipeline.models.hubs.asking import Answer, ask
from pipeline.models.hubs.huggingface import refusal
from pipeline.models.hubs.remote_models import RemoteFile
from pipeline.models.hubs.repository_files import MOST_SMALL_BYTES
from pipeline.models.hubs.results import Ok, Outcome, Refused
from pipeline.models.hubs.transport import Transport
from pipeline.models.registry.content import blob_path, suffix_of
from pipeline.models.registry.records import now


def fetch_small(transport: Transport, file: RemoteFile, what: str) -> Outcome[str]:
    """Put a small file into the store and return its SHA-256. Raises `OSError` where the store cannot be written."""
    if file.sha256 and blob_path(file.sha256, suffix_of(file.name)).is_file():
        return Ok(file.sha256, now())
    answer = ask(transport, "huggingface.file", file.url, what, most_bytes=MOST_SMALL_BYTES)
    if not isinstance(answer, Answer):
        return answer
    if answer.status != 200:
        return refusal(answer, what)
    sha256 = hashlib.sha256(answer.body).hexdigest()
    if file.sha256 not in (None, sha256) or file.git_blob not in (None, git_blob(answer.body)):
        return Refused(what, f"{file.name} is not what the hub said it is (its hash is wrong); try again later")
    blob = blob_path(sha256, suffix_of(file.name))
    if not blob.is_file():
        blob.parent.mkdir(parents=True, exist_ok=True)
        aside = blob.with_name(f".{blob.name}.{uuid.uuid4().hex}.tmp")
        try:
            with aside.open("wb") as opened:
                opened.write(answer.body)
                opened.flush()
                os.fsync(opened.fileno())
            aside.rename(blob)
        finally:
            aside.unlink(missing_ok=True)
    return Ok(sha256, now())


def git_blob(content: bytes) -> str:
    """The hash by which git, and with it Hugging Face, knows a small file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
