"""Rate limits for hubs: token buckets that all processes of a user share, so that together they stay within them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.hubs.remote_models import LABELS, Hub
from pipeline.hubs.waiting import TOLD_S, Say, lock_and_tell, say_nothing
from pipeline.registry.store_folders import data_folder
from pipeline.storage.durable import write_all
from pipeline.storage.locks import lock
from pipeline.storage.platform import open_file
from pipeline.storage.user_folders import make_folder
from pipeline.system.units import duration_text

RequestKind = Literal["huggingface.api", "huggingface.file", "civitai.api", "civitai.file"]


@dataclass(frozen=True, slots=True)
class Bucket:
    """A rate limit: `burst` requests at once, then `per_s`; with `one_at_a_time` a request waits for the one before."""

    hub: Hub
    burst: int
    per_s: float
    one_at_a_time: bool = False


BUCKETS: dict[RequestKind, Bucket] = {
    # Windows of 300 s with 500 requests to the API and 3,000 for files, anonymously and per address
    # (huggingface.co/docs/hub/rate-limits). What a full bucket and its flow let through in one window stays under it.
    "huggingface.api": Bucket("huggingface", burst=100, per_s=(500 - 100) / 300),
    "huggingface.file": Bucket("huggingface", burst=600, per_s=(3000 - 600) / 300),
    # None are published; reliability.md 3.2, trap 19: 1 a second, 5 at once, one download at a time.
    "civitai.api": Bucket("civitai", burst=5, per_s=1.0),
    "civitai.file": Bucket("civitai", burst=5, per_s=1.0, one_at_a_time=True),
}
"""The limits that Darkroom keeps to, by kind of request."""


class Limits:
    """The buckets, stored in small files in `folder`; if that cannot be written, each process has its own.

    `clock` is in seconds and the same for all processes. `say` is told of waits that last.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        say: Say = say_nothing,
    ) -> None:
        self._folder = folder
        self._say = say
        self._clock = clock
        self._sleep = sleep
        self._own: dict[RequestKind, str] = {}

    def wait(self, kind: RequestKind) -> None:
        """Take one request out of the bucket; sleeps until it may be sent."""
        bucket = BUCKETS[kind]
        try:
            with _locked(self._folder / f"{kind}.bucket") as fd:
                state, wait_s = self._taken(bucket, os.read(fd, 200).decode("ascii", "replace"))
                os.lseek(fd, 0, os.SEEK_SET)
                os.ftruncate(fd, 0)
                write_all(fd, state.encode())
        except OSError:
            self._own[kind], wait_s = self._taken(bucket, self._own.get(kind, ""))
        if wait_s > TOLD_S:
            self._say(f"{LABELS[bucket.hub]}: waiting {duration_text(wait_s)}, so as not to ask it too often")
        if wait_s > 0:
            self._sleep(wait_s)

    @contextmanager
    def turn(self, kind: RequestKind) -> Iterator[None]:
        """For the block, hold the only turn of a bucket with `one_at_a_time`."""
        bucket = BUCKETS[kind]

        def waiting() -> None:
            self._say(f"{LABELS[bucket.hub]}: one file at a time; waiting for another process to have fetched its own")

        with ExitStack() as turn:
            if bucket.one_at_a_time:
                with suppress(OSError):  # nowhere to lock: nobody else can be seen
                    turn.enter_context(_locked(self._folder / f"{kind}.turn", waiting))
            yield

    def _taken(self, bucket: Bucket, state: str) -> tuple[str, float]:
        """The bucket's next state, and how long (s) whoever has just taken from it must wait.

        A level below zero is what has been promised to those who wait already.
        """
        now = self._clock()
        level = float(bucket.burst)
        try:
            then, left = map(float, json.loads(state))
            # A clock that was set back must not keep anybody waiting for what it had shown before.
            level = min(level, left + max(0.0, now - then) * bucket.per_s)
        except (ValueError, TypeError):  # new, or cut off by a power failure
            pass
        level -= 1
        return json.dumps([now, level]), max(0.0, -level / bucket.per_s)


@contextmanager
def _locked(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[int]:
    """The file, held; `waiting` is called if that takes long. Without it none is expected to hold it for long."""
    make_folder(path.parent, data_folder())
    fd = open_file(path, os.O_RDWR | os.O_CREAT)
    try:
        lock_and_tell(fd, waiting) if waiting else lock(fd)
        yield fd
    finally:
        os.close(fd)
