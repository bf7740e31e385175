"""Compares the manifest with the image files, hash by hash."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jobs.manifest import events
from jobs.manifest.job_states import iterate_rows
from jobs.manifest.layout import Layout
from jobs.manifest.output_files import file_sha256, is_image, iterate_files, name_fault
from jobs.manifest.parts import read_part
from jobs.manifest.ratings_events import RatingEvent
from jobs.manifest.ratings_view import removed_jobs
from jobs.manifest.schema import DONE, arrow_schema
from jobs.manifest.snapshot import Snapshot, reading_retried
from pipeline.errors import ReadError
from pipeline.metadata.reading import NoRecordError, read_id, read_record, sidecar_fault
from pipeline.storage.user_folders import DEFAULT_OUTPUT_DIR

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a verification. Paths are relative to the output folder.

    `missing`, `changed`, `unreadable` (with the reason) and `sidecars` (what is wrong with those that an image needs)
    are faults. `superseded` images are gone, but their job has another image; `removed` ones were rejected.
    `without_row`, which `darkroom reindex` takes in, `not_taken`, which it does not, with the reason, and `leftovers`
    (temporary files of a process that died, or of one at work) are notes.
    """

    checked: int
    missing: tuple[str, ...]
    changed: tuple[str, ...]
    superseded: tuple[str, ...]
    without_row: tuple[str, ...]
    leftovers: tuple[str, ...]
    unreadable_parts: tuple[str, ...]
    not_taken: tuple[str, ...] = ()
    sidecars: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether every image of the manifest exists unchanged."""
        return not (self.missing or self.changed or self.unreadable or self.sidecars or self.unreadable_parts)


class _Image(NamedTuple):
    path: str
    file_sha256: str
    job_id: str
    image_id: str


class _Content(NamedTuple):
    """The hash of what stands at a path, None if nothing does; or why nobody can tell."""

    digest: str | None
    fault: str | None = None


class _Known(NamedTuple):
    images: list[_Image]
    being_saved: set[str]
    refused: tuple[str, ...]
    removed: frozenset[str]


def verify(output_dir: str | Path = DEFAULT_OUTPUT_DIR) -> Verification:
    """Compare manifest and files; changes nothing. Raises `ReadError` without a manifest."""
    output_dir = Path(output_dir)
    Layout(output_dir).check_there()
    # Files before rows: an image that appears meanwhile is announced in a journal before it gets its name.
    files = [path for path in iterate_files(output_dir) if is_image(path) or path.name.endswith(".tmp")]
    known = reading_retried(output_dir, _read)
    with ThreadPoolExecutor() as threads:  # hashing releases the interpreter lock
        found = list(threads.map(lambda image: _hash(output_dir / image.path), known.images))
    alive = {image.job_id for image, one in zip(known.images, found, strict=True) if one != _Content(None)}
    missing: list[str] = []
    changed: list[str] = []
    unreadable: list[str] = []
    superseded: list[str] = []
    sidecars: list[str] = []
    removed: list[str] = []
    places: dict[str, str | None] = {image.image_id: None for image in known.images}
    for image, (digest, fault) in zip(known.images, found, strict=True):
        if fault is not None:
            places[image.image_id] = image.path
            unreadable.append(f"{image.path} ({fault})")
            continue
        if digest is None:
            gone = superseded if image.job_id in alive else removed if image.image_id in known.removed else missing
            gone.append(image.path)
            continue
        places[image.image_id] = image.path
        if digest != image.file_sha256:
            changed.append(image.path)
        elif image.path.endswith(".jpeg") and (lacking := sidecar_fault(output_dir / image.path)):
            sidecars.append(lacking)
    recorded = {image.path for image in known.images} | known.being_saved
    unrecorded = [path.relative_to(output_dir).as_posix() for path in files]
    unrecorded = [path for path in unrecorded if path not in recorded]
    new = [path for path in unrecorded if not path.endswith(".tmp")]
    reasons = {path: reason for path in new if (reason := _why_not_taken(output_dir, path, places))}
    return Verification(
        checked=len(found),
        missing=tuple(missing),
        changed=tuple(changed),
        superseded=tuple(superseded),
        without_row=tuple(path for path in new if path not in reasons),
        not_taken=tuple(f"{path} ({reason})" for path, reason in reasons.items()),
        sidecars=tuple(sidecars),
        leftovers=tuple(path for path in unrecorded if path.endswith(".tmp")),
        unreadable_parts=known.refused,
        removed=tuple(removed),
        unreadable=tuple(unreadable),
    )


def _read(snapshot: Snapshot) -> _Known:
    columns = (*_Image._fields, "status")
    images = [_Image(*row[:-1]) for row in iterate_rows(snapshot, columns) if row[-1] == DONE]
    being_saved = {row["path"] for path in snapshot.journals for row in events.replay(path).saving.values()}
    refused = [*_faults(snapshot, arrow_schema())]
    removed: frozenset[str] = frozenset()
    if snapshot.ratings is not None:
        refused += _faults(snapshot.ratings, arrow_schema(RatingEvent))
        removed = frozenset(removed_jobs(snapshot.ratings))
    return _Known(images, being_saved, tuple(refused), removed)


def _faults(snapshot: Snapshot, schema: pa.Schema) -> Iterator[str]:
    """The parts that cannot be read, every page of them."""
    yield from (str(error) for _, error in snapshot.refused)
    for part in snapshot.parts:
        try:
            read_part(part, schema)
        except ReadError as error:
            yield str(error)


def _why_not_taken(output_dir: Path, path: str, places: Mapping[str, str | None]) -> str | None:
    """Why reindex makes no row of an image that has none; None where it does.

    `places`: where the images of rows are, by id; None for those that are gone, and may be this one.
    """
    if fault := name_fault(path):
        return fault
    image = output_dir / path
    try:
        image_id, has_record = read_record(image).id, True
    except NoRecordError:
        image_id, has_record = read_id(image) or "", False
    except ReadError as error:
        return str(error).removeprefix(f"{image}: ")
    if place := places.get(image_id):
        return f"a copy of {place}"
    return None if has_record or image_id in places else "no Darkroom record in it"


def _hash(path: Path) -> _Content:
    try:
        return _Content(file_sha256(path))
    except (FileNotFoundError, NotADirectoryError):
        return _Content(None)
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.EINVAL):
            return _Content("")  # no file at all: something else has taken its place
        return _Content(None, error.strerror or str(error))
