"""Downloads one weights file from a hub into the store: resumed, verified, and named only when complete and valid.

What is known beforehand is its SHA-256, and it alone decides. A process that dies leaves a partial file, which the next
one goes on with; a file under the target's name has the content that its name says.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from pipeline.errors import DownloadError, ModelError, Unreachable, UnsafeAnswer
from pipeline.hubs.download_progress import Progress
from pipeline.hubs.file_sources import FileSource, HubRefused, Refusal
from pipeline.hubs.partial_file import START_BYTES, PartialFile, held_partial, partial_path
from pipeline.hubs.query import Answer, is_refused_by_storage
from pipeline.hubs.remote_models import RemoteFile
from pipeline.hubs.retries import Patience, retry_after_s
from pipeline.hubs.transport import Response, Transport
from pipeline.hubs.weights_faults import Front, fault_of_start, fault_of_weights
from pipeline.registry.content import blob_path, suffix_of
from pipeline.registry.store_folders import store_folder
from pipeline.storage.foreign_names import plain
from pipeline.system.units import size_text
from pipeline.weights.headers.base import WeightsHeader

MOST_BYTES = 2**40
"""A file of weights whose size no hub tells is not followed any further."""

SPARE_BYTES = 64 * 2**20
"""So much of the disk is left to others."""

_GAIN_BYTES = 2**20
"""An attempt that has brought so much was no failure, even if it broke off."""

_MISSING_TRIES = 3
"""CivitAI answers 404 also while its storage is out of reach (reliability.md 3.2, trap 4); links to storage run out."""

Judge = Callable[[WeightsHeader], None]
"""Takes the header of weights that are being fetched; raises `ModelError` if they are not wanted, or `HeaderCame`."""

_WEB_TYPES = ("text/html", "application/xhtml+xml", "application/json", "application/problem+json")
_MOST_REFUSAL_BYTES = 64 * 2**10


class HeaderCame(Exception):
    """Raised with the header by a check that needs no more for now. The downloaded part is kept and can be resumed."""

    def __init__(self, header: WeightsHeader) -> None:
        self.header = header
        super().__init__()


class _Damaged(Exception):
    """What came is not what was promised; once more from the first byte may help."""


class _Unwanted(_Damaged):
    """By its header it is nothing that is wanted, as `error` says; unless the header is damaged, it never will be."""

    def __init__(self, error: ModelError) -> None:
        self.error = error
        super().__init__(str(error))


class _Unusable(Exception):
    """What comes is something else, and will be again."""


class _Refused(Exception):
    """The hub has answered with something other than the file."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.say())


@dataclass(frozen=True, slots=True)
class Download:
    """A file with this SHA-256 (64 small hex digits), to be fetched to `target` from the first source that has it.

    `target` ends in `.safetensors` or `.gguf`; if it exists nothing is asked. `size_bytes` is what the hub promises.
    `name` is for messages only. `judge` is given the header as soon as it is here, and may refuse the file by a
    `ModelError`, which is raised once a second look has shown the same; little has come by then, and nothing is kept.
    """

    sources: Sequence[FileSource]
    target: Path
    _: KW_ONLY
    sha256: str
    size_bytes: int | None
    transport: Transport
    name: str
    progress: Progress | None = None
    patience: Patience | None = None
    judge: Judge | None = None

    @property
    def label(self) -> str:
        """The name as it can be shown."""
        return plain(self.name, 80) or "a file"

    def run(self) -> Path:
        """Fetch it. Two processes fetch a file once: the second waits for the first.

        Raises `HubRefused` where every source has refused, `Unreachable` where none could be reached, `DownloadError`
        for all else; what has come is kept, and the same download goes on.
        """
        with (
            plain_disk_faults(self.label, self.target.parent),
            held_partial(self.target, self._say_waiting) as partial,
        ):
            if partial is None:
                return self.target
            self._drop_nonsense(partial)
            self._check_room(partial)
            failures: list[str] = []
            unreachable = 0
            refusals: list[Refusal] = []
            for source in self.sources:
                try:
                    self._fetch(source, partial)
                    partial.becomes(self.target)
                    return self.target
                except _Unwanted as error:
                    raise error.error from None
                except _Refused as error:
                    refusals.append(error.refusal)
                    failures.append(f"{source.label} {error}")
                except (_Unusable, _Damaged, Unreachable, UnsafeAnswer) as error:
                    failures.append(f"{source.label}: {error}")
                    unreachable += isinstance(error, Unreachable)
            kept = f"; {partial.size:,} bytes are kept, the same command resumes" if partial.size else ""
        said = f"{self.label}: {'; '.join(dict.fromkeys(failures)) or 'no hub has it'}{kept}"
        if refusals and len(refusals) == len(failures):
            raise HubRefused(said, refusals)
        raise Unreachable(said) if unreachable and unreachable == len(failures) else DownloadError(said)

    def _say_waiting(self) -> None:
        self.transport.say(f"{self.label}: another process is fetching it; waiting for that")

    def _drop_nonsense(self, partial: PartialFile) -> None:
        """A partial file of an earlier process is not resumed if it cannot be the beginning of the file."""
        too_long = self.size_bytes is not None and partial.size > self.size_bytes
        if partial.size < START_BYTES or too_long or fault_of_start(partial.start, self.target.suffix):
            partial.restart()

    def _check_room(self, partial: PartialFile) -> None:
        """Raises `DownloadError` if the disk cannot take the rest."""
        rest, free = (self.size_bytes or 0) - partial.size, free_bytes(self.target.parent)
        if rest > free:
            raise DownloadError(f"{self.label}: {no_room(rest, free, self.target.parent)}")

    def _fetch(self, source: FileSource, partial: PartialFile) -> None:
        """Fill the partial file from one source and verify it, with all the patience there is."""
        patience = self.patience or Patience()
        failures = missing = 0
        damaged = False
        while True:
            before = partial.size
            try:
                if partial.size != self.size_bytes:
                    self._ask(source, partial)
                self._verify(partial)
                return
            except _Damaged:
                partial.restart()
                if damaged:
                    raise
                damaged = True
            except Unreachable as error:
                failures = 1 if partial.size - before >= _GAIN_BYTES else failures + 1
                if not patience.wait(failures, why=f"{self.label}: {error}", say=self.transport.say):
                    raise
            except _Refused as error:
                status = error.refusal.status
                may_pass = status == 404 or is_refused_by_storage(error.refusal.answer)
                failures, missing = failures + 1, missing + may_pass
                again = status in (408, 425, 429) or status >= 500 or (may_pass and missing < _MISSING_TRIES)
                asked_s = retry_after_s(error.refusal.answer.headers)
                why = f"{self.label}: {source.label} {error.refusal.say().partition(';')[0]}"
                if not again or not patience.wait(
                    failures, crowded=status == 429, asked_s=asked_s, why=why, say=self.transport.say
                ):
                    raise

    def _ask(self, source: FileSource, partial: PartialFile) -> None:
        """One request: what it brings is appended."""
        start = partial.size
        most = self.size_bytes or MOST_BYTES
        with self.transport.get(source.url, kind=source.kind, range_start=start, max_bytes=MOST_BYTES) as answer:
            if answer.status == 416 and start:
                if self.size_bytes is None:
                    return  # it was whole already, or its hash will show that it is not
                raise _Damaged("has not as many bytes as were promised")
            if answer.status not in (200, 206):
                said = Answer(answer.status, answer.headers, beginning(answer), answer.url != source.url)
                raise _Refused(Refusal(source, said))
            _refuse_pages(answer)
            if answer.status == 200 and start:
                partial.restart()
            self._check_announced(answer, partial.size)
            self._tell(partial)
            front = Front(partial.path, self.target.suffix, self.size_bytes)
            looked = partial.size > 0
            for chunk in answer.body:
                if partial.size + len(chunk) > most:
                    raise _Damaged(f"sends more than the {most:,} bytes that were promised")
                partial.append(chunk)
                self._tell(partial)
                if not looked and partial.size >= START_BYTES:
                    looked = True
                    if fault := fault_of_start(partial.start, self.target.suffix):
                        partial.restart()
                        raise _Unusable(f"sends {fault}")
                self._check_header(front, partial)
        if self.size_bytes is not None and partial.size < self.size_bytes:
            raise Unreachable(f"the connection ended after {partial.size:,} of {self.size_bytes:,} bytes")

    def _check_header(self, front: Front, partial: PartialFile) -> None:
        """Decide by the header before the rest is fetched."""
        try:
            header = front.header(partial.size)
        except ModelError as error:
            raise _Damaged(_refused_as(str(error).removeprefix(f"{partial.path.name}: "))) from None
        if header and self.judge:
            try:
                self.judge(header)
            except ModelError as error:
                raise _Unwanted(error) from None

    def _check_announced(self, answer: Response, start: int) -> None:
        """What the headers say of the body's place in the file, and of its length."""
        if answer.status == 206:
            unit, _, place = answer.headers.get("content-range", "").partition(" ")
            first, total = place.partition("-")[0], place.rpartition("/")[2]
            if unit != "bytes" or first != str(start) or total not in ("*", str(self.size_bytes or total)):
                raise _Damaged("sends another part of the file than was requested")
        length = answer.headers.get("content-length")
        if self.size_bytes is not None and length not in (None, str(self.size_bytes - start)):
            raise _Damaged(f"announces {length[:20]} bytes where {self.size_bytes - start:,} were promised")

    def _verify(self, partial: PartialFile) -> None:
        found = partial.sha256()
        if found != self.sha256:
            raise _Damaged(f"the downloaded file has the SHA-256 {found}, expected {self.sha256}")
        if fault := fault_of_weights(partial.path, self.target.suffix):
            partial.restart()
            raise _Unusable(_refused_as(fault))

    def _tell(self, partial: PartialFile) -> None:
        if self.progress:
            self.progress(self.label, partial.size, self.size_bytes)


def free_bytes(folder: Path | None = None) -> int:
    """The bytes that downloads may still use on the disk of a folder, by default of the store."""
    place = folder or store_folder()
    free = shutil.disk_usage(next(one for one in (place, *place.parents) if one.exists())).free
    return max(0, free - SPARE_BYTES)


def to_fetch_bytes(files: Iterable[RemoteFile]) -> int:
    """The bytes that are still to be fetched of these files, each content once, as far as hubs tell sizes."""
    contents = {file.sha256 or file.git_blob or file.url: file for file in files}
    return sum(map(_rest_bytes, contents.values()))


def no_room(needed_bytes: int, room_bytes: int, folder: Path | None = None) -> str:
    """The end of an error message: how much is needed and free where, and the way out."""
    return (
        f"{size_text(needed_bytes)} must be downloaded and {size_text(room_bytes)} are free for "
        f"{folder or store_folder()}, of which {size_text(SPARE_BYTES)} must stay free; make room there or set "
        "DARKROOM_HOME to another disk"
    )


@contextmanager
def plain_disk_faults(what: str, folder: Path) -> Iterator[None]:
    """The system's errors while `what` is written as a `DownloadError`, with the way out."""
    try:
        yield
    except OSError as error:
        raise DownloadError(
            f"{what}: cannot be written to {folder} ({error.strerror or error}); make room or set DARKROOM_HOME to "
            "another disk, then the same command resumes"
        ) from None


def _refused_as(fault: str) -> str:
    return f"has it, but it is refused: {fault}"


def _refuse_pages(answer: Response) -> None:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _WEB_TYPES:
        thing = "JSON text" if "json" in kind else "a web page"
        raise _Unusable(f"sends {thing} in place of the file; its author may ask for a login")


def beginning(answer: Response) -> bytes:
    """As much of an answer as is needed to see why it is not the file."""
    body = b""
    try:
        for chunk in answer.body:
            body += chunk
            if len(body) >= _MOST_REFUSAL_BYTES:
                break
    except DownloadError:  # the status says enough
        pass
    return body[:_MOST_REFUSAL_BYTES]


def _rest_bytes(file: RemoteFile) -> int:
    if file.sha256 is None or file.bytes is None:
        return file.bytes or 0
    left = partial_path(blob_path(file.sha256, suffix_of(file.name)))
    return max(0, file.bytes - (left.stat().st_size if left.is_file() else 0))
