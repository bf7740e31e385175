"""The folders and file names of a manifest."""

from __future__ import annotations

import re
import shlex
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import ReadError
from pipeline.storage.user_folders import DEFAULT_OUTPUT_DIR

MANIFEST = "manifest"

_STEM = re.compile(r"(\d{8}_\d{6}_[0-9a-f]{12})-(\d{4,})")

_PART_FILE = re.compile(r"\.?[0-9A-Za-z_-]{1,100}\.parquet(\.[0-9A-Za-z]{1,64}\.tmp)?")


def is_inside(path: str) -> bool:
    """Whether a path can be that of a row: relative, with `/`, without `..`; links are not checked."""
    parts = path.split("/")
    return not {"", ".", ".."} & {*parts} and not {"\0", "\\"} & {*path} and ":" not in parts[0]


def is_part_file(name: str) -> bool:
    """Whether a name is that of a part or of a part being written: a bare name without folders."""
    return _PART_FILE.fullmatch(name) is not None


def command(output_dir: Path, words: str) -> str:
    """A `darkroom` command for one output folder, quoted for a shell."""
    place = "" if output_dir == Path(DEFAULT_OUTPUT_DIR) else f" --output-dir {shlex.quote(str(output_dir))}"
    return f"darkroom {words}{place}"


def reindex_command(file: Path) -> str:
    """The `darkroom reindex` command that repairs the manifest of a part or journal."""
    return command(next(one.parent for one in file.parents if one.name == MANIFEST), "reindex")


@dataclass(frozen=True, slots=True)
class Layout:
    """The manifest of one output folder, or with `folder` what is kept like it inside of it.

    A journal and the part it becomes share their `stem`.
    """

    output_dir: Path
    folder: str = MANIFEST

    @property
    def root(self) -> Path:
        return self.output_dir / self.folder

    @property
    def ratings(self) -> Layout:
        """The journals and parts of ratings. Versions that have none look into no folder but their own."""
        return Layout(self.output_dir, f"{MANIFEST}/ratings")

    @property
    def journals(self) -> Path:
        return self.root / "journal"

    @property
    def parts(self) -> Path:
        return self.root / "parts"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def claims_lock(self) -> Path:
        return self.root / "claims.lock"

    @property
    def recovery_lock(self) -> Path:
        return self.root / "recovery.lock"

    @property
    def compaction_lock(self) -> Path:
        return self.root / "compaction.lock"

    def image(self, path: str) -> Path | None:
        """The path of the image of a row; None if it would be outside the output folder, which no row of ours is.

        Output folders come from strangers too, and what a manifest names may be deleted or served.
        """
        if not is_inside(path):
            return None
        place = self.output_dir / path
        return place if place.resolve().is_relative_to(self.output_dir.resolve()) else None

    def journal(self, stem: str) -> Path:
        return self.journals / f"{stem}.jsonl"

    def part(self, stem: str) -> Path:
        return self.parts / f"{stem}.parquet"

    def check_there(self) -> None:
        """Raises `ReadError` where there is no manifest."""
        if not self.root.is_dir():
            raise ReadError(f"{self.output_dir}: no manifest here; name the folder of the images with --output-dir")

    def create(self) -> None:
        """Create the folders. Raises OSError if that fails."""
        for folder in (self.journals, self.parts, self.log):
            folder.mkdir(parents=True, exist_ok=True)


def new_stem() -> str:
    """A name that no other process can choose: UTC time, twelve random hex digits, `-0001`."""
    return f"{datetime.now(UTC):%Y%m%d_%H%M%S}_{uuid.uuid4().hex[:12]}-0001"


def next_stem(stem: str) -> str:
    """The journal that a worker opens after `stem`; the number is how recovery finds a successor."""
    base, _, number = stem.rpartition("-")
    return f"{base}-{int(number) + 1:04d}"


def journal_order(path: Path) -> tuple[str, int] | None:
    """Sort key of a journal (a worker's journals in the order written), or None if the file is no journal."""
    match = _STEM.fullmatch(path.stem) if path.suffix == ".jsonl" else None
    return (match[1], int(match[2])) if match else None
