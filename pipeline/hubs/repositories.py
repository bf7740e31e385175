"""Resolves a reference to a repository on Hugging Face to a pinned model with the files to fetch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.hubs import huggingface
from pipeline.hubs.huggingface_protocol import RepositoryFile
from pipeline.hubs.query import FRESH_S
from pipeline.hubs.remote_models import RemoteFile, RemoteModel
from pipeline.hubs.repository_files import (
    Unfit,
    component_files,
    folder_files,
    is_pipeline,
    named_files,
    pipeline_files,
    single_file,
)
from pipeline.hubs.results import Ok, Outcome, Problem
from pipeline.hubs.small_files import text_of
from pipeline.hubs.transport import Transport
from pipeline.registry.card_fields import parse_json
from pipeline.registry.huggingface_cache import name_in_repository
from pipeline.weights.references import CONFIGURATION, Reference

_MOST_INDEX_BYTES = 2**20
_MOST_TAGS = 20
_UNCHECKED = "the hub gives no hash by which {} could be checked"


def repository(transport: Transport, reference: Reference, fresh_s: float = FRESH_S) -> Outcome[RemoteModel]:
    """The model for a reference; only small files are fetched for this.

    The hub is asked if what it said is older than `fresh_s` seconds.
    """
    name, revision, what = reference.repository or "", reference.revision or "main", reference.text
    said = huggingface.info(transport, name, revision, fresh_s)
    if not isinstance(said, Ok):
        return said
    if obstacle := huggingface.obstacle(transport, said.value, what):
        return obstacle
    commit = said.value.sha
    listed = named_files(said.value.files)
    refused = len(said.value.files) - len(listed)
    try:
        if reference.file in (None, CONFIGURATION) and is_pipeline(listed):
            of_index = next(file for file in listed if file.name == CONFIGURATION)
            index = _index(transport, name, commit, of_index, what)
            if not isinstance(index, Ok):
                return index
            chosen = pipeline_files(listed, index.value, weights=reference.file is None)
            inside = reference.file or ""
        else:
            chosen, inside = _part(listed, reference.file, name)
        if unchecked := next((file.name for file in chosen if not (file.sha256 or file.git_blob)), None):
            return Problem("refused", what, _UNCHECKED.format(unchecked))
    except Unfit as unfit:
        return Problem("refused", what, str(unfit))
    folder = inside in ("", CONFIGURATION) or chosen[0].name != inside
    cut = len(inside) + 1 if folder and inside not in ("", CONFIGURATION) else 0
    branch = () if huggingface.COMMIT.fullmatch(revision) else (revision,)
    own_name = name_in_repository(name, inside)
    if inside == CONFIGURATION:
        own_name = f"{name.rpartition('/')[2]}-configuration"
    model = RemoteModel(
        hub="huggingface",
        reference=f"hf:{name}@{commit}" + (f"/{inside}" if inside else ""),
        name=own_name,
        files=tuple(_remote(transport, name, commit, file, cut) for file in chosen),
        folder=folder,
        kind=said.value.kind,
        family=said.value.family,
        base_model=said.value.base_model,
        licence=said.value.licence,
        trigger_words=said.value.trigger_words,
        tags=said.value.free_tags[:_MOST_TAGS],
        revision=commit,
        branches=branch,
        notes=(f"{refused} of its files have names that are refused; they are left out",) if refused else (),
    )
    return Ok(model, said.at, said.stale)


def _part(listed: Sequence[RepositoryFile], file: str | None, repository: str) -> tuple[list[RepositoryFile], str]:
    """The files of a component, of a folder or the one file that is meant, and its path in the repository."""
    if file is None:
        component = component_files(listed)
        if component:
            return component, ""
    elif folder := folder_files(listed, file):
        return folder, file
    one = single_file(listed, file, repository)
    return [one], one.name


def _index(transport: Transport, name: str, commit: str, file: RepositoryFile, what: str) -> Outcome[Mapping[str, Any]]:
    """The `model_index.json` at a commit, checked by its hash; kept for ever."""
    if not (file.sha256 or file.git_blob):
        return Problem("refused", what, _UNCHECKED.format(file.name))
    said = text_of(transport, _remote(transport, name, commit, file), what, _MOST_INDEX_BYTES)
    if not isinstance(said, Ok):
        return said
    index = parse_json(said.value.encode())
    if not isinstance(index, dict):
        return Problem("refused", what, f"its {CONFIGURATION} is no JSON object")
    return Ok(index, said.at)


def _remote(transport: Transport, name: str, commit: str, file: RepositoryFile, cut: int = 0) -> RemoteFile:
    """A file of a repository as it is fetched, with `cut` characters of its name left out."""
    url = huggingface.file_url(transport, name, commit, file.name)
    return RemoteFile(file.name[cut:], url, file.bytes, file.sha256, file.git_blob)
