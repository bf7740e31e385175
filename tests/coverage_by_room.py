"""`python -m tests.coverage_by_room`: what the tests reached, by room, from what `make coverage` has collected.

Ends with 1 where less than 85 % of the lines of `pipeline/` and `jobs/` were reached.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

AT_LEAST = 85.0


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "coverage.json"
        subprocess.run([sys.executable, "-m", "coverage", "json", "--quiet", "-o", file], check=True)
        files = json.loads(file.read_text(encoding="utf-8"))["files"]
    rooms: dict[str, Counter[str]] = {}
    for path, found in files.items():
        parts = Path(path).parts
        for room in {parts[0], "/".join(parts[: 2 if len(parts) > 2 else 1])}:
            rooms.setdefault(room, Counter()).update(
                {name: found["summary"][name] for name in ("num_statements", "covered_lines", "num_branches",
                                                           "covered_branches")}
            )  # fmt: skip
    print(f"{'room':<28}{'lines':>8}{'reached':>9}{'branches':>10}{'reached':>9}")
    for room, count in sorted(rooms.items()):
        lines, branches = (
            _share(count, "covered_lines", "num_statements"),
            _share(count, "covered_branches", "num_branches"),
        )
        print(f"{room:<28}{count['num_statements']:>8}{lines:>8.1f}%{count['num_branches']:>10}{branches:>8.1f}%")
    return int(any(_share(rooms[top], "covered_lines", "num_statements") < AT_LEAST for top in ("pipeline", "jobs")))


def _share(count: Counter[str], part: str, whole: str) -> float:
    return 100.0 * count[part] / count[whole] if count[whole] else 100.0


if __name__ == "__main__":
    sys.exit(main())
