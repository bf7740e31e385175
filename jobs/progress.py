"""What a user sees while images are made: a bar on a terminal, plain lines elsewhere, nothing with `quiet`."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from jobs.engines.messages import Failed, Loaded, Made
from jobs.job import Job

LINE_EVERY_S = 10.0


class Progress:
    """Counts images; moves only when an image and its row are durable."""

    def __init__(self, total: int, *, quiet: bool, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._total, self._quiet = total, quiet
        self._done = self._failed = 0
        self._started = self._last_line = time.monotonic()
        self._bar: Any = None
        if not quiet and self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="image", file=self._stream, dynamic_ncols=True, smoothing=0.1)

    def made(self, made: Made) -> None:
        """One more image."""
        self._step()

    def failed(self, failure: Failed, job: Job) -> None:
        """One image less: which, and why."""
        self._failed += 1
        where = f"prompt {job.prompt_index + 1} of {job.prompt_set}, seed {job.request.seed}, job {job.id[:8]}"
        self.note(f"failed ({failure.kind}): {where}: {failure.message}")
        if self._bar is not None:
            self._bar.set_postfix(failed=self._failed)
        self._step()

    def skipped(self) -> None:
        """One image that another run made meanwhile."""
        self._step()

    def loaded(self, loaded: Loaded) -> None:
        """A model is ready; the clock for images per second starts at the first one."""
        if not self._done:
            self._started = time.monotonic()
            if self._bar is not None:
                self._bar.reset(total=self._total)
        self.note(f"model {loaded.name} loaded in {loaded.seconds:.1f} s")

    def note(self, text: str) -> None:
        """A line of its own, above the bar."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def _step(self) -> None:
        self._done += 1
        if self._bar is not None:
            self._bar.update()
        elif not self._quiet:
            now = time.monotonic()
            if now - self._last_line >= LINE_EVERY_S or self._done == self._total:
                self._last_line = now
                rate = self._done / max(now - self._started, 1e-9)
                left = (self._total - self._done) / rate
                failed = f", {self._failed} failed" if self._failed else ""
                print(
                    f"{self._done} of {self._total} images, {rate:.2f} images/s, {left:.0f} s left{failed}",
                    file=self._stream,
                    flush=True,
                )
