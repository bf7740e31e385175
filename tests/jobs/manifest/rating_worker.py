"""A process that rates: `rating_worker.py DIR NAME EVENTS [compact]`.

Each event is a tag that is printed once it is kept; the tests kill it anywhere.
"""

from __future__ import annotations

import sys
from pathlib import Path

from jobs.manifest import ratings
from jobs.manifest.compaction import compact
from jobs.manifest.ratings import RatingWriter
from jobs.manifest.ratings_events import RatingEvent
from pipeline.errors import ReadError


def rate(output_dir: Path, name: str, events: int, compacting: bool) -> None:
    ratings.SEAL_EVENTS = 7
    for n in range(events):
        if n % 3 == 0:  # a command of its own
            with RatingWriter(output_dir) as writer:
                writer.append([RatingEvent("a" * 8, "tag", f"{name} {n}")])
        else:
            if n % 3 == 1:
                writer = RatingWriter(output_dir)
            writer.append([RatingEvent("a" * 8, "tag", f"{name} {n}")])
            if n % 3 == 2:
                writer.close()
        print(f"{name} {n}", flush=True)
        if compacting and n % 10 == 9:
            try:
                compact(output_dir)
            except ReadError as error:
                if "another compact" not in str(error):
                    raise


if __name__ == "__main__":
    rate(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), "compact" in sys.argv[4:])
