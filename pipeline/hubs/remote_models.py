"""A model on a hub with the files to fetch, in one form for all hubs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.hubs.results import Problem
from pipeline.registry.records import Source, StoredKind

Hub = Literal["huggingface", "civitai"]

LABELS: dict[Hub, str] = {"huggingface": "Hugging Face", "civitai": "CivitAI"}
"""How the hubs call themselves."""

TOKENS: dict[Hub, str] = {"huggingface": "HF_TOKEN", "civitai": "CIVITAI_TOKEN"}
"""The environment variables that may hold a user's token; see `HubSettings.allow_token`."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file on a hub. `name` is the author's name for it; only `content.snapshot` makes a path of it, after a check.

    `bytes` is the hub's word, None where it gives none, and a guess unless `exact`. `sha256` is what the content must
    have. Small files of a repository on Hugging Face have no such hash there but git's own, `git_blob` (SHA-1 over a
    header and the content).
    """

    name: str
    url: str
    bytes: int | None
    sha256: str | None = None
    git_blob: str | None = None
    exact: bool = True


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model on a hub, pinned: its `reference` always means exactly these files.

    `folder`: the files make a diffusers folder or that of one component, else there is one file. `kind` and `family`
    are as the hub tells, None where it does not; what is fetched is looked at again. `branches` are names that point to
    this commit now. `notes` are sentences for people.
    """

    hub: Hub
    reference: str
    name: str
    files: tuple[RemoteFile, ...]
    folder: bool
    kind: StoredKind | None = None
    family: str | None = None
    base_model: str | None = None
    licence: str | None = None
    trigger_words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    revision: str | None = None
    branches: tuple[str, ...] = ()
    version_id: int | None = None
    model_id: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One result of a search, on this machine or on a hub. `obstacle` is why it cannot be downloaded, as far as known.

    `short` is the name without the version's, where it has one. `downloads` is the hub's count; what is None is not
    told in a search. `path` is where it lies on this machine, None if it does not.
    """

    source: Source
    reference: str
    name: str
    short: str = ""
    kind: StoredKind | None = None
    family: str | None = None
    base_model: str | None = None
    licence: str | None = None
    bytes: int | None = None
    downloads: int = 0
    obstacle: Problem | None = None
    path: Path | None = None
