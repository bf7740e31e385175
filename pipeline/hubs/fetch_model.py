"""Downloads a model from a hub: plans the files, fetches them, and adds the model to the registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pipeline.errors import DownloadError, ModelError
from pipeline.hubs import civitai, huggingface, repositories, versions
from pipeline.hubs.answer_cache import keep_place, kept_places
from pipeline.hubs.cards import Card, card, hints_of
from pipeline.hubs.download_progress import Progress, Speedometer
from pipeline.hubs.downloading import (
    Download,
    HeaderCame,
    Judge,
    free_bytes,
    no_room,
    plain_disk_faults,
    to_fetch_bytes,
)
from pipeline.hubs.file_sources import FileSource, HubRefused
from pipeline.hubs.partial_file import partial_path
from pipeline.hubs.query import FRESH_S
from pipeline.hubs.remote_models import RemoteFile, RemoteModel
from pipeline.hubs.results import Ok, Outcome, Problem
from pipeline.hubs.small_files import fetch_small
from pipeline.hubs.transport import Transport
from pipeline.registry.advised_settings import advised_card
from pipeline.registry.card_fields import merged
from pipeline.registry.content import blob_path, provisional, snapshot, suffix_of
from pipeline.registry.database import Registry
from pipeline.registry.inspected import as_stored, look_at
from pipeline.registry.leftovers import leftovers, remove_leftovers
from pipeline.registry.records import StoredFile, StoredModel, now
from pipeline.registry.store_folders import store_folder
from pipeline.registry.stored_cards import card_of
from pipeline.registry.storing import add, files_of
from pipeline.weights.headers.base import WEIGHTS, WeightsHeader
from pipeline.weights.headers.read import read_weights
from pipeline.weights.references import CONFIGURATION, Reference, parse


@dataclass(frozen=True, slots=True)
class DownloadPlan:
    """What a download would fetch. `missing` are the files that are not in the store yet; planning fetches none."""

    model: RemoteModel
    missing: tuple[RemoteFile, ...]
    free_bytes: int

    @property
    def bytes(self) -> int:
        """Bytes still to fetch, as far as the hub tells sizes; bytes of an earlier partial download are not counted."""
        return to_fetch_bytes(self.missing)

    @property
    def fits(self) -> bool:
        """Whether the disk of the store has the room now."""
        return self.bytes <= self.free_bytes


def find_remote(transport: Transport, reference: Reference, *, fresh_s: float = FRESH_S) -> Outcome[RemoteModel]:
    """The model for a hub's reference or a whole SHA-256, with the files to fetch.

    A hash is told to CivitAI, the only hub that finds by it. What is kept for less than `fresh_s` s is taken unasked.
    """
    if reference.scheme == "hf":
        return repositories.repository(transport, reference, fresh_s)
    if reference.scheme == "civitai" and reference.number:
        return versions.version(transport, reference.number, fresh_s)
    if reference.scheme == "sha256" and len(reference.sha256 or "") == 64:
        return versions.version_by_hash(transport, reference.sha256 or "")
    if reference.scheme == "sha256":
        return Problem("not_found", reference.text, "a hub finds by the whole hash only, all 64 digits")
    return Problem("not_found", reference.text, "names no model of a hub")


def plan(model: RemoteModel) -> DownloadPlan:
    """What is still to be fetched of a model, and the free disk space for it."""
    return DownloadPlan(model, tuple(file for file in model.files if not _is_here(file)), free_bytes())


def fetch(
    model: RemoteModel, registry: Registry, transport: Transport, progress: Progress | None = None
) -> Outcome[StoredModel]:
    """Fetch what is missing of a model, and add it to the registry; files that are in the store are not fetched again.

    Raises `DownloadError`, `RegistryError`, and `ModelError` for weights of a kind that is not known here.
    """
    planned = plan(model)
    if not planned.fits:
        raise DownloadError(f"{model.reference}: {no_room(planned.bytes, planned.free_bytes)}")
    with plain_disk_faults(model.reference, store_folder()):
        stored = _fetched(model, registry, transport, progress)
    if not isinstance(stored, Ok):
        return stored
    # From now on it is there without a network. It comes last, so that what is fetched is known if the hub fails now.
    said = card(transport, parse(model.reference))
    return replace(stored, value=keep_card(registry, stored.value, said.value)) if isinstance(said, Ok) else stored


def keep_card(registry: Registry, model: StoredModel, said: Card) -> StoredModel:
    """Keep a hub's card with a model on this machine. Raises `RegistryError`.

    Of what was scanned in, notes beside the file say more of how it is used here; the hub only fills gaps.
    """
    from pipeline.registry.model_description import header_card  # with it comes all that scans folders

    files = files_of(registry, model)
    told = advised_card(hints_of(said), model.kind, model.family)
    is_fetched = any(file.owned for file in files)
    kept = merged(told, header_card(model)) if is_fetched else merged(card_of(registry, model), told)
    return add(registry, model, files, kept)


def _fetched(
    model: RemoteModel, registry: Registry, transport: Transport, progress: Progress | None
) -> Outcome[StoredModel]:
    from pipeline.registry.model_description import header_card

    small = [file for file in model.files if not _is_weights(file)]
    weights = sorted(filter(_is_weights, model.files), key=lambda one: one.bytes or 0)
    known: dict[str, str] = {}
    for file in small:
        said = fetch_small(transport, file, model.reference)
        if not isinstance(said, Ok):
            return said
        known[file.name] = said.value
    if weights and CONFIGURATION in known:  # what is refused for its configuration shows before much is fetched
        with provisional(known) as folder, _refused_by_name(model, folder):
            look_at(folder, configuration=True)
    elif len(weights) > 1:
        judged = _judge_shards(weights, known, model, registry, transport, progress)
        if not isinstance(judged, Ok):
            return judged
    one = weights[0] if len(weights) == 1 and CONFIGURATION not in known else None
    judge = _judge(model, one, known.get("config.json")) if one else None
    for file in weights:
        said = _fetch_weights(file, model, transport, progress, judge)
        if not isinstance(said, Ok):
            return said
        known[file.name] = said.value
    if model.folder:
        path = snapshot(known)
        places = {name: path / name for name in known}
    else:
        ((name, sha256),) = known.items()
        path = blob_path(sha256, suffix_of(name))
        places = {name: path}
    files = [StoredFile.at(place, name, sha256=known[name], owned=True) for name, place in places.items()]
    try:
        with _refused_by_name(model, path):
            look = look_at(path, configuration=parse(model.reference).file == CONFIGURATION)
    except ModelError:
        _remove(registry, path, *map(_place, weights))
        raise
    stored = StoredModel(
        name=model.name,
        source=model.hub,
        reference=model.reference,
        kind=look.kind,
        path=path,
        bytes=sum(file.bytes for file in files),
        family=look.family_by(model.base_model or ""),
        precision=look.precision,
        base_model=model.base_model,
        licence=model.licence,
        trigger_words=model.trigger_words,
        tags=model.tags,
        revision=model.revision,
        branches=model.branches,
        version_id=model.version_id,
        model_id=model.model_id,
    )
    return Ok(add(registry, stored, files, header_card(stored)), now())


@contextmanager
def _refused_by_name(model: RemoteModel, path: Path) -> Iterator[None]:
    """Let what is refused be called as the user called it; what the store calls it says nothing."""
    try:
        yield
    except ModelError as error:
        fault = str(error).removeprefix("model ").removeprefix(f"{path.name}: ").replace(path.name, model.name)
        raise ModelError(f"{model.reference}: cannot be used: {fault}") from None


def _judge(model: RemoteModel, file: RemoteFile, configuration: str | None) -> Judge:
    """Refuses the only weights of a model by their header and its configuration (by its SHA-256), if it has one."""
    from pipeline.weights.file_inspection import inspect_header  # with it comes all that detects families
    from pipeline.weights.folder_inspection import read_json

    path = Path(file.name)

    def judge(header: WeightsHeader) -> None:
        values = read_json(blob_path(configuration, ".json"), "no configuration") if configuration else None
        with _refused_by_name(model, path):
            as_stored(inspect_header(path, header, values))

    return judge


def _judge_shards(
    weights: Sequence[RemoteFile],
    small: Mapping[str, str],
    model: RemoteModel,
    registry: Registry,
    transport: Transport,
    progress: Progress | None,
) -> Outcome[None]:
    """Refuse a component in several files by their headers, for which alone the beginning of each is fetched.

    `small` are the SHA-256 of its other files by name. Raises `ModelError` once a second look has shown the same.
    """
    from pipeline.weights.file_inspection import inspect_shards

    for is_last in (False, True):
        headers: dict[str, WeightsHeader] = {}
        for file in sorted(weights, key=lambda one: one.name):
            said = _fetch_header(file, model, transport, progress)
            if not isinstance(said, Ok):
                return said
            headers[file.name] = said.value
        try:
            with provisional(small) as folder, _refused_by_name(model, folder):
                as_stored(inspect_shards(folder, headers))
            break
        except ModelError:
            _remove(registry, *(path for file in weights for path in (_place(file), partial_path(_place(file)))))
            if is_last:
                raise
    return Ok(None, now())


def _fetch_header(
    file: RemoteFile, model: RemoteModel, transport: Transport, progress: Progress | None
) -> Outcome[WeightsHeader]:
    def enough(header: WeightsHeader) -> None:
        raise HeaderCame(header)

    try:
        said = _fetch_weights(file, model, transport, progress, enough)
    except HeaderCame as came:
        return Ok(came.header, now())
    return Ok(read_weights(_place(file)), now()) if isinstance(said, Ok) else said


def _remove(registry: Registry, *paths: Path) -> None:
    """Take what was refused off the disk, but for what another model has."""
    remove_leftovers(registry, [one for one in leftovers(registry) if one.path in paths])


def _place(file: RemoteFile) -> Path:
    """Where a file of weights lies in the store, or will."""
    return blob_path(file.sha256 or "", suffix_of(file.name))


def _is_weights(file: RemoteFile) -> bool:
    return PurePosixPath(file.name).suffix.lower() in WEIGHTS


def _fetch_weights(
    file: RemoteFile, model: RemoteModel, transport: Transport, progress: Progress | None, judge: Judge | None
) -> Outcome[str]:
    """One file of weights into the store, from wherever hubs have offered it; returns its SHA-256."""
    if file.sha256 is None:
        return Problem("refused", model.reference, f"the hub gives no SHA-256 by which {file.name} could be checked")
    speedometer = Speedometer(progress)
    places = dict.fromkeys([(model.hub, file.url), *kept_places(file.sha256)])
    keep_place(file.sha256, model.hub, file.url)
    sources = [
        FileSource(url, "huggingface.file" if hub == "huggingface" else "civitai.file")
        for hub, url in places
        if url.startswith(f"{transport.settings.url_of(hub)}/")  # not those of yesterday's mirror
    ]
    try:
        Download(
            sources,
            _place(file),
            sha256=file.sha256,
            size_bytes=file.bytes if file.exact else None,
            transport=transport,
            name=file.name,
            progress=speedometer,
            judge=judge,
        ).run()
    except HubRefused as refused:
        answer = refused.refusals[0].answer
        if model.hub == "huggingface":
            return huggingface.refusal(transport, answer, model.reference)
        return civitai.download_refusal(answer, model, transport)
    speedometer.remember()
    return Ok(file.sha256, now())


def _is_here(file: RemoteFile) -> bool:
    return file.sha256 is not None and _place(file).is_file()
