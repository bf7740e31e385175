"""What was chosen for the prompts of a batch: as lines of a plan or a log, and as values for a script."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jobs.planning.validation import Batch
from jobs.terminal import one_line

if TYPE_CHECKING:
    from jobs.planning.choosing import ChosenPrompt

MOST_PARAGRAPHS = 5
"""Distinct choices that a plan explains; `verbose=true` explains all."""

_LONGEST_PROMPT = 60


def choice_lines(batch: Batch, *, verbose: bool, prompts: bool = True) -> Iterator[str]:
    """A paragraph for each distinct choice, with the first prompt that it was made for.

    Without `prompts` only what was chosen: reasons quote the prompt.
    """
    if not batch.chosen:
        return
    from pipeline.selection.choice import read_choice
    from pipeline.selection.explain import paragraph

    groups: dict[str, list[ChosenPrompt]] = defaultdict(list)
    for one in batch.chosen:
        groups[_distinct(one)].append(one)
    for number, group in enumerate(groups.values()):
        if number == MOST_PARAGRAPHS and not verbose:
            yield f"chosen        {len(groups) - number:,} more; verbose=true explains all"
            return
        first = group[0]
        more = f" and {len(group) - 1:,} more" if len(group) > 1 else ""
        if not prompts:
            names = [
                choice["chosen"] for choice in (first.selection["choice"]["model"], *first.selection["choice"]["loras"])
            ]
            yield f"chosen        for {first.place}{more}: {', '.join(names)}"
            continue
        whose = f"for {_shown(first.prompt)}"
        said = paragraph(read_choice(first.selection["choice"]))
        kept = "" if first.selected else " As chosen for an earlier image (selection.refresh=true chooses anew)."
        statistics = first.selection.get("statistics")
        learned = f" Ratings counted: {statistics[:12]} (darkroom learned)." if statistics else ""
        yield f"chosen        {whose}{more}: {said}{learned}{kept}"


def choice_values(batch: Batch) -> dict[str, Any]:
    """The choice for every prompt, with the analysis that it was made from and the hash of the ratings' statistics that
    had a say; empty where nothing was chosen.
    """
    chosen = [{**prompt_values(one), "statistics": one.selection.get("statistics")} for one in batch.chosen]
    return {"choices": chosen} if chosen else {}


def prompt_values(one: ChosenPrompt) -> dict[str, Any]:
    """One prompt with its analysis and choice, as `darkroom explain` prints it."""
    return {"prompt": one.prompt, "analysis": one.selection.get("analysis"), "choice": one.selection["choice"]}


def _distinct(one: ChosenPrompt) -> str:
    choice = one.selection["choice"]
    return repr((choice["model"]["chosen"], [(lora["chosen"], lora["weight"]) for lora in choice["loras"]]))


def _shown(prompt: str) -> str:
    text = one_line(prompt.replace("\n", " "))
    return repr(text if len(text) <= _LONGEST_PROMPT else text[: _LONGEST_PROMPT - 3] + "...")
