"""Runs of the whole program in processes of its own, and what must hold for their output folder afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml
from forked import REPO, TIMEOUT_S, Ended, ForkedProcess

from jobs.engines.processes import WORKER_NAME

IMAGE_SUFFIXES = {".png", ".jpeg", ".jpg", ".webp"}


class Run:
    """A run that goes on in a session of its own, so that signals to its group reach nobody else.

    It is forked from a server that has imported everything, and calls `first`; with `fresh` it starts as Python does,
    by the command `prefix` if there is one.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        env: dict[str, str],
        *,
        prefix: Sequence[str],
        first: Callable[[], object] | None,
        fresh: bool,
    ) -> None:
        self._folder = folder
        out, err = folder / "out.txt", folder / "err.txt"
        self.process: subprocess.Popen[bytes] | ForkedProcess
        if fresh:
            with out.open("w") as to_out, err.open("w") as to_err:
                self.process = subprocess.Popen(
                    [*prefix, sys.executable, str(REPO / "run.py"), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=to_out,
                    stderr=to_err,
                    cwd=folder,
                    env=env,
                    start_new_session=True,
                )
        else:
            self.process = ForkedProcess("run.py", arguments, cwd=folder, env=env, out=out, err=err, first=first)
        self._children: set[int] = set()

    @property
    def err(self) -> str:
        """What it has said on stderr so far."""
        return (self._folder / "err.txt").read_text()

    def wait(self, timeout_s: float = TIMEOUT_S) -> Ended:
        """Its end."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout_s} s:\n{self.err}") from None
        return Ended(code, (self._folder / "out.txt").read_text(), self.err)

    def child(self) -> psutil.Process | None:
        """The worker process, if there is one now."""
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                if process.name() == WORKER_NAME and process.status() != psutil.STATUS_ZOMBIE:
                    self._children.add(process.pid)
                    return process
        return None

    def new_child(self) -> psutil.Process:
        """Waits for a worker that was not seen before."""
        before = set(self._children)

        def look() -> psutil.Process | None:
            child = self.child()
            return None if child is None or child.pid in before else child

        found: psutil.Process = self.until(look)
        return found

    def until(self, look: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> Any:
        """Looks until there is something to see while the run goes on; returns it."""
        deadline = time.monotonic() + timeout_s
        while not (seen := look()):
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.err}"
            assert time.monotonic() < deadline, f"nothing after {timeout_s} s:\n{self.err}"
            time.sleep(0.02)
        return seen

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def signal_group(self, number: int) -> None:
        """As a terminal does on Ctrl-C: to the parent and all its children."""
        os.killpg(self.process.pid, number)

    def kill_both(self) -> None:
        """Parent and worker at once: stopped first, so that neither sees the other's end."""
        child = self.child()
        self.signal(signal.SIGSTOP)
        if child:
            child.kill()
        self.process.kill()
        self.process.wait()

    def kill_group(self) -> None:
        ended = self.process.poll() is not None
        if not (ended and psutil.pid_exists(self.process.pid)):  # of one that has ended, somebody else has the number
            with contextlib.suppress(ProcessLookupError):
                self.signal_group(signal.SIGKILL)
        self.process.wait()


class Batch:
    """One prompt set and the command that makes it, again and again on the same output folder."""

    def __init__(self, folder: Path, output_dir: Path, lines: Any, overrides: Sequence[str], model: Path | str) -> None:
        self.folder, self.output_dir = folder, output_dir
        prompts = folder / "conf" / "prompts"
        prompts.mkdir(parents=True, exist_ok=True)
        prompt_set = {"name": "mine", "lines": list(lines)} if not isinstance(lines, dict) else lines
        (prompts / "mine.yaml").write_text(yaml.safe_dump(prompt_set, allow_unicode=True), encoding="utf-8")
        chosen = ["model=demo"] if model == "demo" else ["model=custom", f"model.source={model}"]
        self.arguments = [
            *("--config-dir", str(folder / "conf"), "prompts=mine", *chosen, "sampling.steps=2"),
            *(f"output.dir={output_dir}", "engine.device=cpu", "engine.cpu_threads=1", *overrides),
        ]
        self.prefix: list[str] = []
        self.first: Callable[[], object] | None = None
        self._runs: list[Run] = []

    def start(self, *overrides: str, env: dict[str, str] | None = None, fresh: bool = False) -> Run:
        """Start the command with further overrides and environment variables."""
        folder = self.folder / f"run{len(self._runs)}-{self.output_dir.name}"
        folder.mkdir()
        every = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "", **(env or {})}
        flags = [override for override in overrides if override.startswith("-")]  # Hydra wants them first
        arguments = [*flags, *self.arguments, *(override for override in overrides if override not in flags)]
        self._runs.append(Run(arguments, folder, every, prefix=self.prefix, first=self.first, fresh=fresh))
        return self._runs[-1]

    def run(self, *overrides: str, env: dict[str, str] | None = None, fresh: bool = False) -> Ended:
        """Run the command to its end."""
        return self.start(*overrides, env=env, fresh=fresh).wait()

    def kill_all(self) -> None:
        for run in self._runs:
            run.kill_group()

    # What is on the disk

    def acknowledged(self) -> dict[str, dict[str, Any]]:
        """The done rows by image id, read from journals and parts without any of the program's own code."""
        rows: dict[str, dict[str, Any]] = {}
        for path in (self.output_dir / "manifest" / "journal").glob("*.jsonl"):
            with contextlib.suppress(FileNotFoundError):  # sealed meanwhile
                rows |= done_in_journal(path)
        return rows | {row["image_id"]: row for row in self.rows() if row["status"] == "done"}

    def rows(self) -> list[dict[str, Any]]:
        """All rows of all sealed parts."""
        import pyarrow.parquet as pq

        found: list[dict[str, Any]] = []
        for path in sorted((self.output_dir / "manifest" / "parts").glob("*.parquet")):
            found += pq.read_table(path).to_pylist()
        return found

    def images(self) -> set[str]:
        """Every file with an image's name, relative to the output folder."""
        found = (path for path in self.output_dir.rglob("*") if path.suffix in IMAGE_SUFFIXES)
        return {path.relative_to(self.output_dir).as_posix() for path in found if not path.name.startswith(".")}

    def journals(self) -> list[Path]:
        return sorted((self.output_dir / "manifest" / "journal").glob("*.jsonl"))

    def summaries(self) -> list[dict[str, Any]]:
        """The summaries of all runs that came to an end, oldest first."""
        paths = (self.output_dir / "runs").glob("*/summary.json")
        return [json.loads(path.read_text()) for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns)]

    def wait_for_images(self, run: Run, count: int) -> dict[str, dict[str, Any]]:
        """Waits until `count` images are acknowledged; returns what is acknowledged then."""
        return run.until(lambda: acknowledged if len(acknowledged := self.acknowledged()) >= count else None)

    def assert_whole(self, jobs: int, since: dict[str, dict[str, Any]] | None = None) -> None:
        """Every one of `jobs` jobs has exactly one row and one file, nothing else is there, and all that was
        acknowledged before (`since`) is still there as it was."""
        done = [row for row in self.rows() if row["status"] == "done"]
        twice = [job_id for job_id, count in Counter(row["job_id"] for row in done).items() if count > 1]
        assert not twice, f"made twice: {twice}"
        assert len(done) == jobs
        assert {row["path"] for row in done} == self.images()
        for row in done:
            content = (self.output_dir / row["path"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == row["file_sha256"], row["path"]
        assert self.journals() == []
        by_image = {row["image_id"]: row["file_sha256"] for row in done}
        lost = [row["path"] for image_id, row in (since or {}).items() if by_image.get(image_id) != row["file_sha256"]]
        assert not lost, f"acknowledged and lost: {lost}"


def done_in_journal(path: Path) -> dict[str, dict[str, Any]]:
    """The rows that a journal's `done` lines acknowledge, by image id; a torn last line is no line."""
    saving: dict[str, dict[str, Any]] = {}
    done: dict[str, dict[str, Any]] = {}
    for line in path.read_bytes().split(b"\n")[:-1]:
        event = json.loads(line)
        if event["event"] == "saving":
            saving[event["row"]["image_id"]] = event["row"]
        elif event["event"] == "done":
            done[event["image_id"]] = saving[event["image_id"]]
    return done
