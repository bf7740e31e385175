"""Downloads of real processes: two at once, killed, interrupted, and with a disk that gets full."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer, Reply, Request, ranged, stall
from hub_weights import Fetching, sha256, weights

from pipeline.errors import DownloadError

WEIGHTS = weights()
WORKER = """
import resource, sys
from pathlib import Path
from pipeline.errors import DownloadError
from pipeline.hubs.downloading import Download
from pipeline.hubs.file_sources import FileSource
from pipeline.hubs.hub_settings import HubSettings
from pipeline.hubs.transport import Transport

url, target, sha256, size, most = sys.argv[1:]
if int(most):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))
transport = Transport(HubSettings(huggingface_url=url))
print("ready", flush=True)
source = FileSource(f"{url}/hf/a", "huggingface.file")
try:
    one = Download([source], Path(target), sha256=sha256, size_bytes=int(size), transport=transport, name="a")
    print(one.run())
except DownloadError as error:
    print(error)
"""


@pytest.fixture
def fetching(tmp_path: Path) -> Iterator[Fetching]:
    with HubServer() as server:
        yield Fetching(server, tmp_path)


def worker(fetching: Fetching, most_bytes: int = 0) -> subprocess.Popen[str]:
    """A process that downloads the weights; returns when it is about to begin."""
    target = str(fetching.target(WEIGHTS))
    arguments = [fetching.server.url, target, sha256(WEIGHTS), str(len(WEIGHTS)), str(most_bytes)]
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def wait_for(path: Path, size: int) -> None:
    """Until the file has so many bytes; the test fails if that never comes."""
    ends = time.monotonic() + 60
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_two_processes_fetch_a_file_once(fetching: Fetching) -> None:
    both_are_there = threading.Event()

    def answer(request: Request) -> Reply:
        both_are_there.wait(60)
        return ranged(request, WEIGHTS)

    fetching.server.route("GET", "/hf/a", answer)
    processes = [worker(fetching), worker(fetching)]
    both_are_there.set()
    said = [process.communicate(timeout=60) for process in processes]
    assert said == [(f"{fetching.target(WEIGHTS)}\n", "")] * 2
    assert len(fetching.server.requests) == 1
    assert fetching.target(WEIGHTS).read_bytes() == WEIGHTS
    assert fetching.left() == [fetching.target(WEIGHTS).name]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_download_that_was_stopped_half_way_is_gone_on_with(fetching: Fetching, how: signal.Signals) -> None:
    source = fetching.offer(WEIGHTS)
    fetching.server.fault(".*", stall(100_000), times=1)
    process = worker(fetching)
    wait_for(fetching.partial(WEIGHTS), 100_000)
    process.send_signal(how)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == -how
    assert ("KeyboardInterrupt" in complaint) == (how == signal.SIGINT)
    assert fetching.left() == [fetching.partial(WEIGHTS).name]

    assert fetching.fetch(WEIGHTS, source).read_bytes() == WEIGHTS
    assert fetching.ranges() == [None, "bytes=100000-"]
    assert fetching.left() == [fetching.target(WEIGHTS).name]


def test_who_waits_takes_over_from_the_dead(fetching: Fetching) -> None:
    fetching.offer(WEIGHTS)
    fetching.server.fault(".*", stall(100_000), times=1)
    first = worker(fetching)
    wait_for(fetching.partial(WEIGHTS), 100_000)
    second = worker(fetching)
    first.kill()
    first.communicate()
    assert second.communicate(timeout=60) == (f"{fetching.target(WEIGHTS)}\n", "")
    assert fetching.ranges() == [None, "bytes=100000-"]


def test_a_file_that_may_not_grow_further_is_kept_and_said(fetching: Fetching) -> None:
    source = fetching.offer(WEIGHTS)
    said, complaint = worker(fetching, most_bytes=150_000).communicate(timeout=60)
    assert said.startswith(f"a: cannot be written to {fetching.folder / 'store'} (File too large); make room or set")
    assert (said.count("\n"), complaint) == (1, "")
    assert fetching.partial(WEIGHTS).read_bytes() == WEIGHTS[:150_000]

    assert fetching.fetch(WEIGHTS, source).read_bytes() == WEIGHTS
    assert fetching.ranges() == [None, "bytes=150000-"]


def test_a_disk_that_gets_full_half_way_keeps_what_came(fetching: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fetching.offer(WEIGHTS)
    write, room = os.write, 100_000

    def limited(fd: int, data: memoryview) -> int:
        """As the system does: what still fits is written, then nothing."""
        nonlocal room
        if Path(f"/proc/self/fd/{fd}").readlink().suffix != ".partial":
            return write(fd, data)
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(fd, data[:room])
        room -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", limited)
        with pytest.raises(DownloadError, match=r"\(No space left on device\); make room or set DARKROOM_HOME"):
            fetching.fetch(WEIGHTS, source)
    assert fetching.left() == [fetching.partial(WEIGHTS).name]
    assert fetching.partial(WEIGHTS).read_bytes() == WEIGHTS[:100_000]

    assert fetching.fetch(WEIGHTS, source).read_bytes() == WEIGHTS
    assert fetching.ranges() == [None, "bytes=100000-"]


def test_a_store_that_cannot_be_made_is_said(fetching: Fetching) -> None:
    source = fetching.offer(WEIGHTS)
    (fetching.folder / "store").write_text("in the way")
    with pytest.raises(DownloadError, match=r"cannot be written to .*store"):
        fetching.fetch(WEIGHTS, source)
    assert fetching.server.requests == []
