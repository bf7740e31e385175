"""Choosing over the made registry of 200 models and 2,000 LoRAs: how often it is right, taken in, and how fast.

Read by the analysis by rules, as a run reads prompts and cards. The time is that of the processor for prompts that are
all different, cards having been read; reading them is reported beside it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

from benchmarks.made_registry import Made, made_prompts, made_registry
from benchmarks.measuring import Row, Scale

PROMPTS = 10_000
SECONDS = 10.0
FITTING = 90.0
LIES = 2.0


def choosing(scale: Scale) -> Iterator[Row]:
    """What the choices over the made registry are, and 10,000 of them in seconds."""
    made = made_registry()
    yield from _right(made)
    yield from _fast(made, scale)


def _right(made: Made) -> Iterator[Row]:
    from pipeline.prompting.rules import analyse
    from pipeline.selection.choose import choose
    from pipeline.selection.wishes import Wishes

    offers = made.offers(analyse)
    reference = {model.name: model.reference for model in made.models}
    models = {model.reference: model for model in made.models}
    loras = {lora.reference: lora for lora in made.loras}
    prompts = made_prompts()
    missed = lies = added = misfits = 0
    for prompt in prompts:
        choice = choose(prompt.text, analyse(prompt.text), offers, Wishes())
        runner_up = choice.model.runner_up
        first = [choice.model.reference, *([reference[runner_up[0]]] if runner_up else [])]
        missed += not any(made.suits(one, prompt) for one in first)
        lies += bool(made.truth[choice.model.reference].lie)
        for lora in choice.loras:
            truth, model = made.truth[lora.reference], models[choice.model.reference]
            added += 1
            lies += bool(truth.lie) and truth.look not in prompt.looks
            misfits += loras[lora.reference].family != model.family
            misfits += (loras[lora.reference].convention == "pony") != (model.convention == "pony")
    share = 100 / len(prompts)
    yield Row(
        "selection.choice.missed",
        f"{len(prompts)} prompts over a made registry: no fitting model within the first two",
        missed * share,
        "%",
        100 - FITTING,
        f"{len(made.models)} models, {len(made.loras):,} LoRAs; {added} LoRAs added",
    )
    yield Row("selection.choice.lies", "the same: a lie chosen, model or LoRA", lies * share, "%", LIES)
    yield Row("selection.choice.misfits", "LoRAs of another family, or across Pony", misfits, "", 0)


def _fast(made: Made, scale: Scale) -> Iterator[Row]:
    from pipeline.prompting.rules import analyse
    from pipeline.selection.choose import choose
    from pipeline.selection.wishes import Wishes

    started = time.process_time()
    offers = made.offers(analyse)
    read_s = time.process_time() - started
    count = scale.of(PROMPTS)
    wishes = Wishes()
    started = time.process_time()
    for text in islice(_different_prompts(), count):
        choose(text, analyse(text), offers, wishes)
    yield Row(
        "selection.choice.seconds",
        f"analyse and choose for {count:,} prompts by rules",
        time.process_time() - started,
        "s",
        scale.of(PROMPTS) / PROMPTS * SECONDS,
        f"reading the cards before {read_s:.2f} s",
    )


def _different_prompts() -> Iterator[str]:
    """Made prompts, each with a word that no other has."""
    number = 0
    while True:
        for prompt in made_prompts():
            yield f"{prompt.text}, number{number}"
            number += 1
