"""Claims: one process per job, and none left behind by the dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from manifest_rows import job_id

from jobs.manifest.claims import Claims
from jobs.manifest.layout import Layout

ROOT = Path(__file__).parents[3]

HOLDER = """
import sys, time
from pathlib import Path
from jobs.manifest.claims import Claims
claims = Claims(Path(sys.argv[1]))
print(len(claims.claim(sys.argv[2:])), flush=True)
time.sleep(60)
"""


def holder(output_dir: Path, *job_ids: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(output_dir), *job_ids]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline().strip() == str(len(job_ids))
    return process


def test_a_job_belongs_to_one_process_until_that_is_killed(tmp_path: Path) -> None:
    other = holder(tmp_path, job_id(1), job_id(2))
    with closing(Claims(tmp_path)) as claims:
        assert claims.claim([job_id(1), job_id(3), job_id(2)]) == [job_id(3)]
        other.send_signal(signal.SIGKILL)
        other.communicate()
        assert claims.claim([job_id(1), job_id(2)]) == [job_id(1), job_id(2)]


def test_a_released_job_can_be_claimed_by_another(tmp_path: Path) -> None:
    with closing(Claims(tmp_path)) as claims:
        claims.claim([job_id(1), job_id(2)])
        claims.release(job_id(1))
        claims.release(job_id(7))  # never held
        other = holder(tmp_path, job_id(1))
        assert claims.claim([job_id(1)]) == []
        other.kill()
        other.communicate()


def test_a_process_gets_a_job_once(tmp_path: Path) -> None:
    with closing(Claims(tmp_path)) as claims:
        assert claims.claim([job_id(1), job_id(1)]) == [job_id(1)]
        assert claims.claim([job_id(1)]) == []


def test_the_lock_file_survives_the_highest_job_id(tmp_path: Path) -> None:
    with closing(Claims(tmp_path)) as claims:
        assert claims.claim(["f" * 64, "0" * 64]) == ["f" * 64, "0" * 64]
        claims.release("f" * 64)
    assert Layout(tmp_path).claims_lock.stat().st_size == 0


def test_a_second_set_of_claims_in_one_process_is_refused(tmp_path: Path) -> None:
    with closing(Claims(tmp_path)), pytest.raises(RuntimeError, match="already open"):
        Claims(tmp_path / "x" / "..")
    with closing(Claims(tmp_path)) as claims:
        claims.close()
        claims.close()
