"""Rebuilds the manifest from the images.

Rows of attempts without an image, of images that carry no record (`metadata=private`) and of those that were removed as
rejected stand nowhere else: they are kept, and so are ratings. A live run goes on undisturbed; its rows are left where
they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.manifest import events
from jobs.manifest.compaction import compacting, merged_name, replaceable_parts
from jobs.manifest.job_states import iterate_part
from jobs.manifest.layout import Layout
from jobs.manifest.output_files import file_sha256, is_image, iterate_files, name_fault
from jobs.manifest.parts import TornPart, read_part, table_from_rows, write_temporary_part
from jobs.manifest.ratings_events import RatingEvent
from jobs.manifest.ratings_view import removed_jobs
from jobs.manifest.replacement import replace_parts
from jobs.manifest.rows import done_row
from jobs.manifest.schema import DONE, Row, arrow_schema
from jobs.manifest.snapshot import Snapshot, reading_retried
from pipeline.errors import ReadError
from pipeline.metadata.reading import NoRecordError, read_id, read_pixels, read_record, sidecar_fault
from pipeline.metadata.record import Record, pixel_hash
from pipeline.storage.durable import writing
from pipeline.storage.user_folders import DEFAULT_OUTPUT_DIR

if TYPE_CHECKING:
    import pyarrow as pa

PART_ROWS = 10_000


@dataclass(slots=True)
class Reindexing:
    """The result of a reindex. `added`: images that had no row. `dropped`: rows whose image is gone.

    `unreadable`: images whose record is damaged, or whose pixels are not those that were made, one line each; the row
    of such an image is kept if there is one, so that it stays known as changed. `set_aside`: parts that could not be
    read; their files stay, under a name that no reader takes for a part.
    """

    rebuilt: int = 0
    added: int = 0
    kept: int = 0
    dropped: int = 0
    unreadable: list[str] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Before:
    """The manifest as it is: the parts to replace, the path and hash of each of their images, and what others hold.

    `torn` are files in the parts' folder that are none, `torn_ratings` those of ratings; `removed` the ids of images
    that were removed as rejected.
    """

    parts: list[Path]
    paths: dict[str, str]
    hashes: dict[str, str]
    elsewhere: set[str]
    torn: list[Path]
    torn_ratings: list[Path]
    removed: frozenset[str]


def reindex(output_dir: str | Path = DEFAULT_OUTPUT_DIR) -> Reindexing:
    """Rebuild the `done` rows from the images and replace the parts in one step.

    Raises `ReadError` without an output folder or beside another reindex or compact, `DiskFull` when there is
    no room for the new parts; the manifest is then as it was.
    """
    output_dir = Path(output_dir)
    if not output_dir.is_dir():
        raise ReadError(f"{output_dir}: no such folder; name the folder of the images with --output-dir")
    with writing(Layout(output_dir).root):
        Layout(output_dir).create()
    with compacting(output_dir) as layout:
        # Files before rows: an image that appears meanwhile is announced in a journal before it gets its
        # name.
        images = [path for path in iterate_files(output_dir) if is_image(path)]
        before = reading_retried(output_dir, lambda snapshot: _read(layout, snapshot))
        result = Reindexing()
        outputs: list[tuple[Path, Path]] = []
        try:
            for table in _new_tables(output_dir, images, before, result):
                output = merged_name(layout)
                outputs.append((write_temporary_part(output, [table]), output))
            replace_parts(layout, before.parts, outputs)
            _set_aside(before.torn, "its rows come from the images now", result)
            _set_aside(before.torn_ratings, "its ratings are lost", result)
        except BaseException:
            for temporary, _ in outputs:
                temporary.unlink(missing_ok=True)
            raise
    return result


def _read(layout: Layout, snapshot: Snapshot) -> _Before:
    torn = [path for path, error in snapshot.refused if isinstance(error, TornPart)]
    torn_ratings, removed = _ratings(snapshot.ratings) if snapshot.ratings else ([], frozenset[str]())
    before = _Before(replaceable_parts(layout, snapshot), {}, {}, set(), torn, torn_ratings, removed)
    for part in snapshot.parts:
        for image_id, path, status, digest in iterate_part(part, ("image_id", "path", "status", "file_sha256")):
            if status != DONE:
                continue
            if part in before.parts:
                before.paths[image_id] = path
                before.hashes[image_id] = digest
            else:
                before.elsewhere.add(image_id)
    for journal in snapshot.journals:
        content = events.replay(journal)
        before.elsewhere.update(row["image_id"] for row in content.finished if row["status"] == DONE)
        before.elsewhere.update(content.saving)
    return before


def _ratings(snapshot: Snapshot) -> tuple[list[Path], frozenset[str]]:
    """The parts of ratings that cannot be read, and the images that were removed as rejected."""
    torn = [path for path, error in snapshot.refused if isinstance(error, TornPart)]
    for part in snapshot.parts:
        try:
            read_part(part, arrow_schema(RatingEvent))
        except ReadError:
            torn.append(part)
    return torn, frozenset(removed_jobs(snapshot))


def _new_tables(output_dir: Path, images: list[Path], before: _Before, result: Reindexing) -> Iterator[pa.Table]:
    rebuilt: set[str] = set()
    unrecorded: list[Path] = []
    rows: list[Row] = []
    for row in _rebuilt_rows(output_dir, images, before, result, unrecorded):
        image_id = str(row["image_id"])
        if image_id in rebuilt:
            continue  # a copy
        rebuilt.add(image_id)
        result.added += image_id not in before.paths
        rows.append(row)
        if len(rows) == PART_ROWS:
            yield _sorted(table_from_rows(rows))
            rows.clear()
    result.rebuilt = len(rebuilt)
    if rows:
        yield _sorted(table_from_rows(rows))
    hashes = {path.relative_to(output_dir).as_posix(): file_sha256(path) for path in unrecorded}
    for part in list(before.parts):
        try:
            table = read_part(part)
        except ReadError:
            before.parts.remove(part)
            before.torn.append(part)
            continue
        kept = _kept(output_dir, table, rebuilt, before.removed, hashes, result)
        if kept.num_rows:
            yield kept


def _rebuilt_rows(
    output_dir: Path, images: list[Path], before: _Before, result: Reindexing, unrecorded: list[Path]
) -> Iterator[Row]:
    """The rows of the images that carry their record, known paths first; the others go to `unrecorded`."""
    copies: list[tuple[Path, str]] = []
    for path in images:
        relative = path.relative_to(output_dir).as_posix()
        if fault := name_fault(relative):
            result.unreadable.append(f"{path}: {fault}")
            continue
        try:
            record, digest = read_record(path), file_sha256(path)
        except FileNotFoundError:
            continue
        except NoRecordError:
            unrecorded.append(path)
            known = (image_id := read_id(path)) in before.paths or image_id in before.elsewhere
            if not known and (fault := sidecar_fault(path)):
                result.unreadable.append(fault)
            continue
        except ReadError as error:
            result.unreadable.append(str(error))
            continue
        if record.id in before.elsewhere:
            continue
        if digest != before.hashes.get(record.id) and (fault := _fault(path, record, before.hashes)):
            result.unreadable.append(fault)
            continue
        if before.paths.get(record.id, relative) == relative:
            yield done_row(record, relative, digest)
        else:
            copies.append((path, relative))
    # An image that is not where it was: renamed, or a copy of one that the caller has seen already.
    for path, relative in copies:
        yield done_row(read_record(path), relative, file_sha256(path))


def _fault(path: Path, record: Record, hashes: Mapping[str, str]) -> str | None:
    """What is wrong with an image whose file is not the one that was saved, if it is more than its metadata.

    Where pixels were kept without loss, they decide; else only the file's own hash can, if there is a row with it.
    """
    lossless = record.output.format == "png" or (record.output.format == "webp" and record.output.quality is None)
    if not lossless:
        return f"{path}: not the file that was saved; its row stays as it is" if record.id in hashes else None
    try:
        pixels = read_pixels(path)
    except ReadError as error:
        return str(error)
    if pixel_hash(record.width, record.height, pixels.tobytes()) == record.pixels_sha256:
        return None
    return f"{path}: its pixels are not those that were made; darkroom reproduce makes it again"


def _set_aside(torn: list[Path], outcome: str, result: Reindexing) -> None:
    for path in torn:
        aside = path.with_suffix(".damaged")
        path.rename(aside)
        result.set_aside.append(f"{path}: could not be read, {outcome}; kept as {aside.name}")


def _kept(
    output_dir: Path,
    part: pa.Table,
    rebuilt: set[str],
    removed: frozenset[str],
    hashes: dict[str, str],
    result: Reindexing,
) -> pa.Table:
    """The rows of an old part that stay. `hashes`: path to SHA-256 of the images without a record, by which a row
    finds its private image again wherever that was moved.
    """
    import pyarrow as pa

    places = {digest: path for path, digest in hashes.items()}
    mask: list[bool] = []
    paths: list[Any] = part.column("path").to_pylist()
    columns = (part.column(name).to_pylist() for name in ("status", "image_id", "file_sha256"))
    for index, (status, image_id, digest) in enumerate(zip(*columns, strict=True)):
        if status != DONE:
            mask.append(True)
            continue
        if image_id in rebuilt:
            mask.append(False)
            continue
        path = paths[index]
        if hashes.get(path) != digest:
            stays = image_id in removed or (output_dir / path).is_file()
            paths[index] = places.get(digest, path if stays else None)
        mask.append(paths[index] is not None)
        result.dropped += paths[index] is None
    result.kept += sum(mask)
    column = part.schema.get_field_index("path")
    return part.set_column(column, part.schema.field(column), pa.array(paths, pa.string())).filter(mask)


def _sorted(table: pa.Table) -> pa.Table:
    return table.sort_by([("created_at", "ascending"), ("image_id", "ascending")])
