"""Where workers come from: forked from a server without a GPU, new processes with one; either way the same pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from forked import REPO
from test_families_run import config_for, rows

from jobs.engines.processes import StartMethod, WorkerProcesses
from jobs.running.main import main

SIGNALS_WITHIN_SIGNALS = """
import signal, sys
from jobs.engines.processes import _main

class Connection:
    sent = 0

    def recv(self):
        sys.settrace(self.at_each_call)
        signal.raise_signal(signal.SIGTERM)
        sys.settrace(None)
        print("answered", self.sent, flush=True)
        raise EOFError

    def at_each_call(self, frame, event, argument):
        if event == "call" and self.sent < 20:
            self.sent += 1
            signal.raise_signal(signal.SIGTERM)

_main(Connection(), {})
"""


@pytest.mark.slow
def test_each_way_makes_the_same_pictures_and_replaces_workers(tiny_sd: Path, tmp_path: Path) -> None:
    made = {}
    for method in get_args(StartMethod):
        out = tmp_path / method
        engine = {"device": "cpu", "cpu_threads": 1, "recycle_images": 1}
        config = config_for(tiny_sd, out, engine=engine, batch_size=1, bundle_images=1)
        workers = WorkerProcesses(method)
        workers.prepare()
        try:
            assert main([config], [], workers) == 0
        finally:
            workers.close()
        made[method] = rows(out, "job_id, pixels_sha256")
    assert len(made["spawn"]) == 2 and made["spawn"] == made["forkserver"]


@pytest.mark.slow
def test_what_is_imported_ahead_starts_no_cuda_and_reaches_no_device() -> None:
    """A process that has touched CUDA could not be forked; nor may one that computes already."""
    look = (
        "import jobs.engines.preloaded, sys, torch, threading\n"
        "assert {'torch', 'diffusers', 'transformers', 'jobs.engines.worker'} <= {*sys.modules}\n"
        "assert not torch.cuda.is_initialized()\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
    )
    done = subprocess.run([sys.executable, "-c", look], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_worker_is_told_to_end_while_it_is_being_told_to_end() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SIGNALS_WITHIN_SIGNALS], cwd=REPO, capture_output=True, text=True, timeout=60
    )
    assert (ended.stdout.split()[0], ended.returncode) == ("answered", 0), ended.stderr
    assert int(ended.stdout.split()[1]) > 0


@pytest.mark.slow
def test_a_worker_makes_rows_without_pandas_which_others_may_import() -> None:
    look = (
        "import sys\n"
        "from jobs.engines.worker_main import _keep_pandas_out\n"
        "_keep_pandas_out()\n"
        "import pyarrow\n"
        "assert pyarrow.Table.from_pylist([{'steps': 20}]).num_rows == 1 and 'pandas' not in sys.modules\n"
        "import pandas\n"
    )
    ended = subprocess.run([sys.executable, "-c", look], cwd=REPO, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
