"""What a process keeps of the memory that it has freed."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.engines import worker_main
from jobs.engines.messages import WorkerSettings
from pipeline.errors import RunStopped

ROOT = Path(__file__).parents[3]

PASSES = """
import json, resource, sys
from pipeline.system.process_memory import give_back_freed, keep_freed

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

if "keep" in sys.argv:
    keep_freed()
faults = []
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [bytearray(b"1") * (24 * 2**20) for _ in range(4)]
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
kept = resident()
if "beyond" in sys.argv:
    give_back_freed(beyond_bytes=2**30)
    left = kept - resident()
    give_back_freed(beyond_bytes=2**20)
else:
    left = 0
    give_back_freed()
print(json.dumps({"faults": faults, "left": left, "given_back": kept - resident()}))
"""
"""Five times four blocks of 24 MB, as a forward pass has them."""


def passes(*arguments: str, **variables: str) -> dict[str, Any]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PASSES, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env={**own, **variables})
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told so")
class TestKeepFreed:
    def test_memory_is_taken_from_the_system_once(self) -> None:
        anew, kept = passes()["faults"], passes("keep")["faults"]
        assert max(kept[1:]) < min(anew[1:]) / 10

    def test_all_of_it_can_be_given_back(self) -> None:
        assert passes("keep")["given_back"] > 90 * 2**20

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("MALLOC_TRIM_THRESHOLD_", "131072"),
            ("MALLOC_MMAP_THRESHOLD_", "131072"),
            ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072"),
        ],
    )
    def test_what_a_user_has_set_stays(self, name: str, value: str) -> None:
        assert passes("keep", **{name: value})["given_back"] < 20 * 2**20

    def test_a_little_may_stay(self) -> None:
        found = passes("keep", "beyond")
        assert found["given_back"] > 90 * 2**20
        assert found["left"] < 20 * 2**20


@pytest.mark.parametrize(("device", "keeps"), [("cpu", 1), ("cuda", 0)])
def test_a_worker_keeps_freed_memory_on_the_cpu_alone(
    device: str, keeps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Connection:
        def __init__(self) -> None:
            self.waiting = [WorkerSettings(str(tmp_path), "run", frozenset(), (), device)]

        def recv(self) -> WorkerSettings:
            if not self.waiting:
                raise EOFError
            return self.waiting.pop()

        def send(self, _message: object) -> None: ...

    class Ended(Exception):
        pass

    def end(_code: int) -> None:
        raise Ended

    def refuse(*_: object) -> None:
        raise RunStopped("the folder cannot be written")

    kept: list[None] = []
    monkeypatch.setattr(worker_main, "keep_freed", lambda: kept.append(None))
    monkeypatch.setattr(worker_main, "Worker", refuse)
    monkeypatch.setattr(worker_main, "forward", lambda *_, **__: None)
    monkeypatch.setattr("jobs.engines.worker_main.tqdm.set_lock", lambda _lock: None)
    monkeypatch.setattr("warnings.simplefilter", lambda _action: None)
    monkeypatch.setattr("os._exit", end)
    with pytest.raises(Ended):
        worker_main.work(Connection(), [])  # type: ignore[arg-type]
    assert len(kept) == keeps
