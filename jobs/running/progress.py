"""Progress of a run: a bar on a terminal, plain lines elsewhere, nothing with `quiet`."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from jobs.engines.messages import Failed, Loaded
from jobs.job import Job
from jobs.terminal import printable
from pipeline.system.units import duration_text

LINE_EVERY_S = 10.0
TICK_EVERY_S = 0.5

BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


class Progress:
    """Counts images; moves only when an image and its row are durable. Failures are counted separately."""

    def __init__(self, total: int, *, quiet: bool, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._total, self._quiet = total, quiet
        self._made = self._elsewhere = self._failed = self._denoised = 0
        self._at = ""
        self._rate: float | None = None
        self._loaded_at: float | None = None
        self._last_line = self._last_tick = time.monotonic()
        self._bar: Any = None
        if not quiet and self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, file=self._stream, dynamic_ncols=True, bar_format=BAR)

    def at(self, what: str, denoised: int = 0) -> None:
        """Show what the worker is doing now; `denoised` images were denoised since the last call.

        Images become durable many at a time, so that what was denoised tells the pace long before.
        """
        self._at = what
        self._denoised += denoised
        if denoised:
            self._measure(self._denoised)
        elif what == "encoding":
            self._denoised = self._made
        if self._left:
            self._show()

    def made(self) -> None:
        """Count one more image."""
        self._made += 1
        if self._made > self._denoised:  # the worker that denoised it has died
            self._measure(self._made)
        self._show()

    def failed(self, failure: Failed, job: Job) -> None:
        """Count one failed image, and print which one and why."""
        self._failed += 1
        where = f"{job.prompt_place}, seed {job.request.seed}, job {job.id[:8]}"
        self.note(f"failed ({failure.kind}): {where}: {failure.message}")
        self._show()

    def skipped(self) -> None:
        """Count one image that another run made meanwhile."""
        self._elsewhere += 1
        self._show()

    def loaded(self, loaded: Loaded) -> None:
        """A model is loaded; the clock for images per second starts at the first one."""
        self._loaded_at = self._loaded_at or time.monotonic()
        self.note(f"model {loaded.name} loaded in {duration_text(loaded.seconds)}")

    def tick(self) -> None:
        """Update the display; call a few times a second."""
        now = time.monotonic()
        if now - self._last_tick >= TICK_EVERY_S and self._left:
            self._last_tick = now
            self._show()

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.write(printable(text), file=self._stream)
        else:
            print(printable(text), file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the bar as it is now."""
        if self._bar is not None:
            self._bar.close()

    def _measure(self, images: int) -> None:
        if self._loaded_at is not None:
            self._rate = images / max(time.monotonic() - self._loaded_at, 1e-9)

    @property
    def _left(self) -> int:
        return self._total - self._made - self._elsewhere - self._failed

    def _show(self) -> None:
        if not self._left:
            self._measure(self._made)
        done = self._made + self._elsewhere
        if self._bar is not None:
            self._bar.set_postfix_str(self._state(), refresh=False)
            self._bar.n = done
            self._bar.refresh()
        elif not self._quiet:
            now = time.monotonic()
            if now - self._last_line >= LINE_EVERY_S or not self._left:
                self._last_line = now
                print(f"{done} of {self._total} images, {self._state()}", file=self._stream, flush=True)

    def _state(self) -> str:
        parts = []
        if self._rate:
            parts.append(f"{self._rate:.2f} images/s")
            if self._left:
                parts.append(f"{duration_text(self._left / self._rate)} left")
        if self._failed:
            parts.append(f"{self._failed} failed")
        if self._left and self._at:
            parts.append(self._at)
        return ", ".join(parts)
