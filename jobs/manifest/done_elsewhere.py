"""Jobs that other processes finished since this one started; read once per bundle, in milliseconds."""

from __future__ import annotations

from pathlib import Path

from jobs.manifest.events import Replay
from jobs.manifest.job_states import iterate_part, job_key
from jobs.manifest.layout import Layout, journal_order
from jobs.manifest.parts import part_version
from jobs.manifest.schema import DONE
from pipeline.errors import ReadError


def part_names(output_dir: Path) -> frozenset[str]:
    """The names of the sealed parts now; call before `read_states`, which then has read all of them."""
    return frozenset(path.name for path in Layout(output_dir).parts.glob("*.parquet"))


class DoneElsewhere:
    """`job_id in finished`, as of the last `refresh`: finished in parts that a plan did not know, or in live journals.

    Told apart by name, not by time: with `resume=false`, or after an image was deleted, a job is made again although a
    part of a moment ago has it.
    """

    def __init__(self, output_dir: Path, known_parts: frozenset[str]) -> None:
        self._layout = Layout(output_dir)
        self._done: set[bytes] = set()
        self._journals: dict[Path, Replay] = {}
        self._parts_seen: set[str] = set(known_parts)

    def __contains__(self, job_id: str) -> bool:
        return job_key(job_id) in self._done

    def refresh(self, own: Path | None = None) -> None:
        """Read what was appended to journals and sealed into parts since the last call.

        `own` is the journal that the caller writes: it knows what is in there, and reading it takes time.
        """
        # Journals first: one that is sealed in between is then found among the parts.
        for path in self._layout.journals.glob("*.jsonl"):
            if path != own and journal_order(path) and path.is_file():
                self._follow(path)
        # Until two listings are alike: while one is made or read, a new part may come and those that it replaces go.
        listed: frozenset[str] | None = None
        while listed != (names := part_names(self._layout.output_dir)):
            listed = names
            for name in names - self._parts_seen:
                self._parts_seen.add(name)
                self._read(self._layout.parts / name)

    def _follow(self, path: Path) -> None:
        journal = self._journals.setdefault(path, Replay())
        try:
            with path.open("rb") as file:
                file.seek(journal.offset)
                journal.feed(file.read())
        except FileNotFoundError:
            del self._journals[path]
            return
        self._done.update(job_key(row["job_id"]) for row in journal.finished if row["status"] == DONE)
        journal.finished.clear()

    def _read(self, path: Path) -> None:
        try:
            part_version(path)
            rows = iterate_part(path, ("job_id", "status"))
            self._done.update(job_key(job_id) for job_id, status in rows if status == DONE)
        except (ReadError, FileNotFoundError):
            # Foreign files are reported by who reads everything; a compacted part's rows are in another.
            return
