"""What a process keeps of the memory that it has freed."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

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
give_back_freed()
print(json.dumps({"faults": faults, "kept": kept, "given_back": kept - resident()}))
"""
"""Five times four blocks of 24 MB, as a forward pass has them."""


def passes(*arguments: str, **variables: str) -> dict[str, object]:
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
        assert isinstance(anew, list)
        assert isinstance(kept, list)
        assert max(kept[1:]) < min(anew[1:]) / 10

    def test_all_of_it_can_be_given_back(self) -> None:
        found = passes("keep")
        assert isinstance(found["given_back"], int)
        assert found["given_back"] > 90 * 2**20

    def test_what_a_user_has_set_stays(self) -> None:
        found = passes("keep", MALLOC_TRIM_THRESHOLD_="131072")["faults"]
        assert isinstance(found, list)
        assert min(found[1:]) > 1_000
