"""`run.py` as it is, with a stopwatch on its progress bar: `python -m benchmarks.our_run ARGUMENTS`.

The bar learns of the model's load and moves when an image and its row are durable, so the time from the one to the
last of the other is ours to compare with a loop's time after load. The last line says it.
"""

from __future__ import annotations

import json
import runpy
import sys
import time

import jobs.batch
from benchmarks.measuring import ROOT
from jobs.engines.messages import Loaded, Made
from jobs.progress import Progress

loaded_s: list[float] = []
made_s: list[float] = []


class Stopwatch(Progress):
    """The progress bar, noting when it is told something."""

    def loaded(self, loaded: Loaded) -> None:
        """A model is ready."""
        loaded_s.append(time.perf_counter())
        super().loaded(loaded)

    def made(self, made: Made) -> None:
        """An image and its row are durable."""
        made_s.append(time.perf_counter())
        super().made(made)


def main() -> None:
    """Run `run.py` with the arguments given here; its exit code is ours."""
    script = str(ROOT / "run.py")
    sys.argv[0] = script
    jobs.batch.Progress = Stopwatch  # type: ignore[attr-defined]
    code: object = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        code = ended.code
    if not code:
        print(json.dumps({"generate_s": made_s[-1] - loaded_s[0], "loads": len(loaded_s), "made": len(made_s)}))
    sys.exit(code)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
