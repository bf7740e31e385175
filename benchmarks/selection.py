"""Understanding and choosing: what the rules find in labelled prompts, and how long they take.

Shares are given as what is missed or wrong, in percent, so that less is better as everywhere in the table.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

from benchmarks.labelled_prompts import (
    GENEVAL,
    GROUPS,
    HELD_OUT_ALLOWANCE,
    PRECISION,
    colours_found,
    counts_found,
    geneval_rows,
    labelled_prompts,
    score,
)
from benchmarks.measuring import Row, Scale
from benchmarks.selection_choice import choosing
from benchmarks.selection_learning import learning
from benchmarks.selection_start import starting

PROMPTS = 10_000


def measure(scale: Scale) -> Iterator[Row]:
    """Everything that is promised of analysis and choice."""
    yield from _labelled()
    yield from _geneval()
    yield from _analysing(scale)
    yield from choosing(scale)
    yield from learning(scale)
    yield from starting(scale)


def _labelled() -> Iterator[Row]:
    from pipeline.prompting.rules import analyse

    prompts = labelled_prompts()
    # Which held-out prompts are misread is not shown, so that nobody tunes to them.
    for part, chosen, allowance in (
        ("tuning", [one for one in prompts if not one.held_out], 0.0),
        ("held out", [one for one in prompts if one.held_out], HELD_OUT_ALLOWANCE),
    ):
        for group, (_, least) in GROUPS.items():
            total, mistakes = score(group, chosen, analyse)
            key = f"selection.labelled.{part}.{group}".replace(" ", "_")
            shown = mistakes if part == "tuning" else []
            yield Row(
                f"{key}.missed",
                f"{len(chosen)} labelled prompts, {part}: {group}, labels missed",
                _percent(1 - total.found_share),
                "%",
                _percent(1 - least + allowance),
                f"{total.found} of {total.labels} found" + _first(one.prompt for one in shown if one.missed),
            )
            yield Row(
                f"{key}.wrong",
                f"{len(chosen)} labelled prompts, {part}: {group}, values that are wrong",
                _percent(1 - total.precision),
                "%",
                _percent(1 - PRECISION + allowance),
                f"{total.right} of {total.given} right" + _first(one.prompt for one in shown if one.wrong),
            )


def _percent(share: float) -> float:
    return round(100 * share, 6)  # so that a limit that is just kept is kept


def _first(prompts: Iterator[str]) -> str:
    shown = [prompt if len(prompt) <= 60 else prompt[:57] + "..." for prompt in islice(prompts, 2)]
    return f"; not in: {' / '.join(shown)}" if shown else ""


def _geneval() -> Iterator[Row]:
    from pipeline.prompting.rules import analyse

    counted = counts_found(geneval_rows("counting"), analyse)
    coloured = colours_found(geneval_rows("colors", "color_attr"), analyse)
    for name, total in (("counts", counted), ("colours", coloured)):
        yield Row(
            f"selection.geneval.{name}",
            f"GenEval: {name} missed",
            _percent(1 - total.found_share),
            "%",
            _percent(1 - GENEVAL),
            f"{total.found} of {total.labels} found, {total.given} given",
        )


def _analysing(scale: Scale) -> Iterator[Row]:
    from pipeline.prompting.rules import analyse

    texts = [one.prompt for one in labelled_prompts()] + [row["prompt"] for row in geneval_rows("position", "colors")]
    count = scale.of(PROMPTS)
    prompts = [f"{texts[index % len(texts)]}, number {index}" for index in range(count)]
    started, cpu = time.perf_counter(), time.process_time()
    for prompt in prompts:
        analyse(prompt)
    taken = time.perf_counter() - started
    yield Row(
        "selection.analysing",
        f"rules over {count:,} distinct prompts",
        taken,
        "s",
        note=f"{taken / count * 1e6:.0f} microseconds each, {time.process_time() - cpu:.2f} s of CPU",
    )
