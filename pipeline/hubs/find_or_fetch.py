"""Finds the model that a user names on this machine, or fetches it from a hub; identifies the model of a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DownloadError, ModelError, Unreachable
from pipeline.hubs.cards import Card, card_by_hash
from pipeline.hubs.download_progress import Progress
from pipeline.hubs.fetch_model import DownloadPlan as DownloadPlan
from pipeline.hubs.fetch_model import fetch, find_remote, plan
from pipeline.hubs.hub_search import Found as Found
from pipeline.hubs.hub_search import search as search
from pipeline.hubs.huggingface import COMMIT
from pipeline.hubs.offers import NOUNS, attempt, nowhere, offers
from pipeline.hubs.offers import Attempt as Attempt
from pipeline.hubs.query import FRESH_S
from pipeline.hubs.remote_models import RemoteModel
from pipeline.hubs.results import PASSING, Ok, Outcome, Problem
from pipeline.hubs.transport import Transport
from pipeline.registry.database import Registry
from pipeline.registry.known_hashes import Identified, identify_file
from pipeline.registry.lookup import find_place, is_known
from pipeline.registry.queries import find
from pipeline.registry.records import StoredKind, StoredModel, now
from pipeline.registry.resolve import existing, resolve
from pipeline.weights.references import EMBEDDED, Reference, asked_for, parse


@dataclass(frozen=True, slots=True)
class Fetched:
    """The path of a model, the reference that names it from now on, and how it was obtained.

    `tried` has every place that was looked at, the last being the one that had it. `downloaded`: it was not here.
    """

    path: Path
    reference: str
    downloaded: bool
    tried: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Planned:
    """What `find_or_download` would do: `plan` is what would be fetched, `path` is where the model is already."""

    tried: tuple[Attempt, ...]
    plan: DownloadPlan | None = None
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """The hashes of a file, and where it is known: `here` are the models on this machine, `hub` is CivitAI's answer.

    `hub` is None if CivitAI was not asked.
    """

    path: Path
    here: Identified
    hub: Outcome[Card] | None

    @property
    def known(self) -> StoredModel | None:
        """The model on this machine with the same content, else with the same weights but other metadata."""
        return next(iter((*self.here.same, *self.here.same_tensors)), None)


def find_or_download(
    named: str,
    registry: Registry,
    transport: Transport,
    *,
    kind: StoredKind | None = None,
    refresh: bool = False,
    progress: Progress | None = None,
) -> Fetched:
    """The model for a reference or a plain name: on this machine, else from Hugging Face, else from CivitAI.

    By name only a model is taken that is called so; of several that could be had, none is. A hub that has it and cannot
    give it leaves the word to the next. With `refresh` Hugging Face is asked for what the branch holds now, also of a
    model that is here. Raises `ModelError` with all that was tried, and candidates; it is `Unreachable` where the same
    call may go well the next time.
    """
    noun = NOUNS[kind]
    if not refresh and (place := _local(named, noun)):
        return Fetched(place, _reference_at(registry, named, place), False, (Attempt("this machine", "found"),))
    parsed, tried = _newer(registry, named, noun) if refresh else _not_here(named, noun)
    for where, reference in offers(parsed, transport, kind, tried):
        try:
            remote = _remote(transport, reference, noun, refresh=refresh)
            stored = fetch(remote.value, registry, transport, progress) if isinstance(remote, Ok) else remote
        except DownloadError as error:
            tried.append(attempt(where, named, str(error), is_passing=isinstance(error, Unreachable)))
            continue
        tried.append(attempt(where, named, stored.say(), is_passing=stored.kind in PASSING))
        if isinstance(stored, Ok):
            return Fetched(stored.value.path, stored.value.reference, True, tuple(tried))
    raise nowhere(named, noun, tried)


def plan_by_name(named: str, transport: Transport, *, kind: StoredKind | None = None, refresh: bool = False) -> Planned:
    """What `find_or_download` would fetch, without fetching it. Raises as that does."""
    noun = NOUNS[kind]
    if not refresh and (place := _local(named, noun)):
        return Planned((Attempt("this machine", "found"),), path=place)
    if refresh:
        with Registry() as registry:
            parsed, tried = _newer(registry, named, noun)
    else:
        parsed, tried = _not_here(named, noun)
    for where, reference in offers(parsed, transport, kind, tried):
        remote = _remote(transport, reference, noun, refresh=refresh)
        tried.append(attempt(where, named, remote.say(), is_passing=remote.kind in PASSING))
        if isinstance(remote, Ok):
            return Planned(tuple(tried), plan(remote.value))
    raise nowhere(named, noun, tried)


def plan_download(reference: str, transport: Transport, *, noun: str = "model") -> Outcome[DownloadPlan | Path]:
    """What a download would fetch, or the path of a model that is here. Raises `ModelError` for no reference."""
    if place := _local(reference, noun):
        return Ok(place, now())
    parsed = asked_for(parse(reference), noun)
    if parsed.scheme in ("path", "name"):
        return Ok(resolve(reference, noun), now())
    remote = _remote(transport, parsed, noun)
    return Ok(plan(remote.value), remote.at, remote.stale) if isinstance(remote, Ok) else remote


def identify(path: Path, registry: Registry, transport: Transport | None = None) -> Identity:
    """Identify a weights file. Only with a `transport`, and if no model here matches, its hash is sent to CivitAI.

    Raises `ModelError` for what is no file or cannot be read, and `RegistryError`.
    """
    file = path.expanduser()
    found = Identity(file, identify_file(registry, file), None)
    if transport is None or found.known:
        return found
    return Identity(file, found.here, card_by_hash(transport, found.here.sha256))


def _not_here(named: str, noun: str) -> tuple[Reference, list[Attempt]]:
    """What is looked for elsewhere, and the first entry of what was tried. Raises `ModelError` for a path."""
    parsed = parse(named)
    if parsed.scheme == "path":
        resolve(named, noun)  # which says what is wrong
    return parsed, [Attempt("this machine", "not here")]


def _newer(registry: Registry, named: str, noun: str) -> tuple[Reference, list[Attempt]]:
    """The branch to be asked for, and the first entry of what was tried; what is not here is looked for as ever.

    Raises `ModelError` for what has no branch: a commit, a version of CivitAI, a file of the user's own.
    """
    parsed = parse(named)
    if parsed.scheme == "hf":
        if COMMIT.fullmatch(parsed.revision or ""):
            raise ModelError(f"{noun} {named!r}: is a commit, which never changes; leave out the part after the @")
        return parsed, [Attempt("this machine", "not asked")]
    known = find(registry, parsed)  # which its caller has open: on a full disk nobody can open it besides
    if not known:
        return _not_here(named, noun)
    model = known[0]
    if len(known) > 1 or model.source != "huggingface":
        raise ModelError(
            f"{noun} {named!r}: --refresh works only for downloads from Hugging Face; name it as hf:org/name"
        )
    of = parse(model.reference)
    branch = next(iter(model.branches), "main")
    text = f"hf:{of.repository}@{branch}" + (f"/{of.file}" if of.file else "")
    return parse(text), [Attempt("this machine", f"found {model.reference}")]


def _reference_at(registry: Registry, named: str, place: Path) -> str:
    """By what reference the model that was named is known; of one content under several, the one that was named."""
    known = [*find(registry, named), *find(registry, Reference(str(place), "path"))]
    return next((model.reference for model in known if place.is_relative_to(model.path)), named)


def _remote(transport: Transport, reference: Reference, noun: str, *, refresh: bool = False) -> Outcome[RemoteModel]:
    """What a hub has by a reference, if that is looked for; with `refresh` nothing that it said before counts."""
    remote = find_remote(transport, reference, fresh_s=0.0 if refresh else FRESH_S)
    if refresh and isinstance(remote, Ok) and remote.stale:
        return Problem("offline", reference.text, f"the cached answer is {remote.say()}")
    return _fitting(remote, noun)


def _fitting(remote: Outcome[RemoteModel], noun: str) -> Outcome[RemoteModel]:
    """What the hub surely knows to be something else than is looked for is not fetched for it."""
    wanted = next((kind for kind, one in NOUNS.items() if one == noun and kind), None)
    # "model" is also said where the kind is not known.
    if not isinstance(remote, Ok) or wanted in (None, "checkpoint"):
        return remote
    model = remote.value
    is_pipeline = any(file.name == "model_index.json" for file in model.files)
    if wanted == "vae":  # which may be taken out of a whole model in one file
        if not is_pipeline:
            return remote
        return Problem("refused", model.reference, f"is a whole model; its VAE alone is {model.reference}/vae")
    is_sure = model.hub == "civitai" or is_pipeline
    if is_sure and model.kind not in (None, wanted):
        return Problem("refused", model.reference, f"is of the kind {model.kind}, and {noun} was requested")
    return remote


def _local(text: str, noun: str) -> Path | None:
    """What the text means on this machine. Raises `ModelError` for what is here and is damaged or ambiguous."""
    parsed = parse(text)
    if parsed.scheme in ("path", "name") and (text in EMBEDDED or existing(text)):
        return resolve(text, noun)
    return find_place(parsed, noun) if parsed.scheme != "path" and is_known(asked_for(parsed, noun)) else None
