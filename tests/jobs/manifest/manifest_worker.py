"""A worker as the engine runs it, with files instead of pictures: `manifest_worker.py DIR JOBS SEAL_ROWS [compact]`.

Prints a job's number once its image is acknowledged; the tests kill it anywhere.
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from manifest_rows import attempt_of, job_id, make

from jobs.manifest.claims import Claims
from jobs.manifest.compaction import compact
from jobs.manifest.done_elsewhere import DoneElsewhere, part_names
from jobs.manifest.job_states import job_key, read_states
from jobs.manifest.journal import Journal
from jobs.manifest.recovery import recover
from jobs.manifest.schema import QUARANTINED
from pipeline.errors import ReadError


def work(output_dir: Path, jobs: int, seal_rows: int, compacting: bool) -> None:
    recover(output_dir)
    known_parts = part_names(output_dir)
    states = read_states(output_dir)
    finished = DoneElsewhere(output_dir, known_parts)
    with closing(Claims(output_dir)) as claims, Journal(output_dir, seal_rows=seal_rows) as journal:
        for n in range(jobs):
            state = states.others.get(job_key(job_id(n)))
            if job_key(job_id(n)) in states.folders or (state and state.status == QUARANTINED):
                continue
            if not claims.claim([job_id(n)]):
                continue
            finished.refresh()
            if job_id(n) not in finished:
                # Two in flight at a time, so that a seal under way always has one to carry over.
                journal.start([attempt_of(n + 1_000_000)])
                make(journal, output_dir, n, attempt=state.attempt + 1 if state else 1)
                print(n, flush=True)
                journal.seal_if_due()
                journal.release([job_id(n + 1_000_000)])
            claims.release(job_id(n))
    if compacting:
        try:
            compact(output_dir)
        except ReadError as error:
            if "another compact" not in str(error):
                raise


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), "compact" in sys.argv[4:])
