"""What choosing costs one picture of the demo model: the whole process, beyond the same with everything set."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from statistics import median

from benchmarks.measuring import Row, Scale, command_seconds, interleaved

MOST_SECONDS = 0.15
ROUNDS = 9
PROMPT = "a red house in hills at sunset with a sun on the left"


def starting(scale: Scale) -> Iterator[Row]:
    """`run.py prompt="..."` with rules, against the same with model and settings named."""
    folder = scale.new_folder("selection")
    same = ("run.py", f"prompt={PROMPT}", "resume=false", f"output.dir={folder}")
    commands = {
        "chosen": (*same, "selection=rules"),
        "named": (*same, "selection=manual", "model=demo", "sampling.steps=20", "sampling.guidance_scale=2"),
    }
    for command in commands.values():
        command_seconds(*command)
    measures = {name: partial(command_seconds, *command) for name, command in commands.items()}
    seconds = interleaved(measures, scale.rounds(ROUNDS))
    beyond = median(one - other for one, other in zip(seconds["chosen"], seconds["named"], strict=True))
    yield Row(
        key="selection.start",
        what='run.py prompt="..." with rules, beyond the same with everything set',
        measured=beyond,
        unit="s",
        at_most=MOST_SECONDS,
        note=f"{min(seconds['chosen']):.2f} s against {min(seconds['named']):.2f} s at best",
    )
