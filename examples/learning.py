"""Rate pictures, see what was learned from them, and how it moves the next choice.

darkroom models scan /models         # once: with two models or more there is something to learn
python examples/learning.py
python examples/learning.py "a house by the sea"
"""

import subprocess
import sys
from pathlib import Path

from jobs import reindex
from pipeline import Picture, Pipeline

PROMPT = sys.argv[1] if len(sys.argv) > 1 else "a house by the sea"
OUT = "outputs/learning"
SEEDS = range(4)


def darkroom(*arguments: str) -> None:
    """A command of Darkroom, as in a shell: shown, then run."""
    print(f"\n$ darkroom {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "jobs", *arguments], check=True)


def made(exclude: tuple[str, ...] = ()) -> list[Path]:
    """Pictures by what suits the prompt best, without what is excluded."""
    with Pipeline.auto(exclude=exclude) as pipeline:
        pictures = pipeline.generate_many([PROMPT], seeds=SEEDS, steps=2, width=64, height=64)
        return [one.save(OUT) for one in pictures if isinstance(one, Picture)]


before = Pipeline.auto().explain(PROMPT)
print(f"before: {before}")
best = before.choice.model
if best.runner_up is None:
    sys.exit(f"{best.chosen} is the only model here; scan a folder with others: darkroom models scan FOLDER")
liked, disliked = made(exclude=(best.chosen,)), made()
reindex(OUT)  # pictures from Python become rows; a run writes its own

# 1 to 5 stars; the last word on a picture counts. `darkroom rate --next` goes through the unrated ones with keys.
darkroom("rate", *map(str, liked), "5", "--output-dir", OUT)
darkroom("rate", *map(str, disliked), "1", "--output-dir", OUT)

# What was learned, from how many ratings, with what effect on scores; then the same prompt again.
darkroom("learned", "--output-dir", OUT)
darkroom("explain", PROMPT, "--output-dir", OUT)
