"""Sweeps over models and over LoRAs against plain diffusers loops (`plain_sweep.py`), one call per image.

Models: 3 tiny models x 4 prompts x 4 seeds x 2 guidance scales, as `run.py -m` with the models varying fastest. LoRAs:
4 of them x 2 weights x 2 prompts x 4 seeds on one tiny model. Times are of processes of their own, run in turn, and
ratios are within a round: *generation* from the first loaded model to the last saved picture, further loads included,
*whole process* from starting `python` to its end. How many texts were encoded is counted in a worker that makes the
sweep of models once more. Pictures are compared one by one.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measuring import Row, Scale, answer, in_child, our_run, ratio_of_pairs

MODELS, LORAS = 3, 4
PROMPTS, SEEDS = 4, 4
GUIDANCE = (2.0, 5.0)
WEIGHTS = (0.5, 1.0)
STEPS = 8
ROUNDS, LONG_ROUNDS = 1, 3
COLUMNS = ("path", "model", "prompt_index", "seed", "guidance_scale", "loras", "lora_weights")
Found = dict[str, list[dict[str, Any]]]


def measure(scale: Scale) -> Iterator[Row]:
    """Both sweeps, ours and plain."""
    folder = scale.new_folder("sweeps")
    written = in_child("sweeps", "weights", folder)
    yield from _models(folder, written["models"], scale)
    yield from _loras(folder, written["models"][0], written["loras"], scale)


def _models(folder: Path, models: Sequence[str], scale: Scale) -> Iterator[Row]:
    sweep = _sweep(PROMPTS, max(1, scale.of(SEEDS)), models=models, guidance=GUIDANCE)
    guidance = ",".join(f"{value:g}" for value in GUIDANCE)
    given = [f"sampling.guidance_scale={guidance}", "model=custom", f"model.source={','.join(models)}", *_common(sweep)]
    file = _written(folder / "models.json", sweep)
    found = _in_turn(folder / "models", ["-m", *given], file, ("models",), scale.rounds(ROUNDS, LONG_ROUNDS))
    images = len(models) * PROMPTS * len(sweep["seeds"]) * len(GUIDANCE)
    said = f"{len(models)} models x {PROMPTS} prompts x {len(sweep['seeds'])} seeds x {len(GUIDANCE)} guidance scales"
    plain = found["models"][0]
    yield Row(
        "sweeps.models.loads",
        f"model loads of a sweep: {said}",
        found["ours"][0]["loads"],
        "",
        len(models),
        f"plain loop {plain['loads']}; {found['ours'][0]['made']} images of {images}",
    )
    counted = in_child("sweeps", "count", folder / "counted", file)
    yield Row(
        "sweeps.models.encodes",
        f"texts encoded in this sweep ({PROMPTS} prompts and an empty negative one, per model)",
        counted["texts"],
        "",
        len(models) * (PROMPTS + 1),
        f"plain loop {plain['texts']}",
    )
    largest = _largest_difference(
        folder / "models" / "0",
        "models",
        lambda row: f"{row['model']}_{row['prompt_index']}_{row['seed']}_{row['guidance_scale']:g}",
    )
    text = f"sweep over {len(models)} models, {images} images, against a plain loop, each cell loading its model"
    yield from _times("sweeps.models", text, found, "models", largest)


def _loras(folder: Path, model: str, loras: Sequence[str], scale: Scale) -> Iterator[Row]:
    sweep = _sweep(2, max(1, scale.of(SEEDS)), models=[model], guidance=[GUIDANCE[1]], loras=loras, weights=WEIGHTS)
    axes = f"adapters.loras.0.source: [{', '.join(loras)}], adapters.loras.0.weight: [{WEIGHTS[0]}, {WEIGHTS[1]}]"
    given = [
        "model=custom",
        f"model.source={model}",
        f"sampling.guidance_scale={GUIDANCE[1]}",
        f"adapters.loras=[{{source: {loras[0]}}}]",
        f"grid={{{axes}}}",
        *_common(sweep),
    ]
    file = _written(folder / "loras.json", sweep)
    found = _in_turn(folder / "loras", given, file, ("switching", "reloading"), scale.rounds(ROUNDS, LONG_ROUNDS))
    said = f"{len(loras)} LoRAs x {len(WEIGHTS)} weights x 2 prompts x {len(sweep['seeds'])} seeds"
    images = len(loras) * len(WEIGHTS) * 2 * len(sweep["seeds"])
    yield Row(
        "sweeps.loras.loads",
        f"model loads of a sweep: {said}",
        found["ours"][0]["loads"],
        "",
        1,
        f"{found['ours'][0]['made']} images of {images}",
    )
    largest = _largest_difference(
        folder / "loras" / "0",
        "switching",
        lambda row: f"{row['loras'][0]}_{row['lora_weights'][0]:g}_{row['prompt_index']}_{row['seed']}",
    )
    ways = {"switching": "set_adapters each time", "reloading": "load_lora_weights each time"}
    for way, text in ways.items():
        against = f"sweep over {len(loras)} LoRAs, {images} images, against a plain loop, {text}"
        yield from _times(f"sweeps.loras.{way}", against, found, way, largest)


def _in_turn(folder: Path, given: Sequence[str], file: Path, ways: Sequence[str], rounds: int) -> Found:
    """Ours and each plain way once per round; `process_s` is added to what they answer."""
    found: Found = {"ours": [], **{way: [] for way in ways}}
    for number in range(rounds):
        place = folder / str(number)
        for way, answers in found.items():
            started = time.perf_counter()
            if way == "ours":
                one = our_run(*given, f"output.dir={place / 'ours'}")
            else:
                one = in_child("plain_sweep", way, file, place / way)
            answers.append({**one, "process_s": time.perf_counter() - started})
    return found


def _times(key: str, text: str, found: Found, way: str, largest: int) -> Iterator[Row]:
    for kind, name in (("generate_s", "generation"), ("process_s", "whole process")):
        ours, theirs = ([one[kind] for one in found[which]] for which in ("ours", way))
        yield Row(
            f"{key}.{name.partition(' ')[0]}",
            f"{text}: {name}",
            ratio_of_pairs(ours, theirs),
            "x",
            note=f"{median(ours):.1f} s against {median(theirs):.1f} s"
            + (f"; no pixel differs by more than {largest} of 255" if kind == "generate_s" else ""),
        )


def _sweep(prompts: int, seeds: int, **more: Any) -> dict[str, Any]:
    from benchmarks.composing import prompts as worded

    return {"prompts": worded(prompts), "seeds": list(range(seeds)), "steps": STEPS, **more}


def _common(sweep: dict[str, Any]) -> list[str]:
    from benchmarks.composing import inline_prompts

    seeds = f"seeds={{start: 0, count: {len(sweep['seeds'])}}}"
    return [inline_prompts(len(sweep["prompts"])), seeds, f"sampling.steps={sweep['steps']}"]


def _written(file: Path, sweep: dict[str, Any]) -> Path:
    file.write_text(json.dumps(sweep), encoding="utf-8")
    return file


def _largest_difference(folder: Path, way: str, name: Callable[[Any], str]) -> int:
    """Of any pixel of any picture of ours to that of the plain loop, whose name follows from our row."""
    import numpy as np
    import PIL.Image

    from jobs.archive.search import search

    largest = 0
    for row in search(folder / "ours", columns=COLUMNS):
        ours, plain = (
            np.asarray(PIL.Image.open(file).convert("RGB"), dtype=int)
            for file in (folder / "ours" / row["path"], folder / way / f"{name(row)}.png")
        )
        largest = max(largest, int(np.abs(ours - plain).max()))
    return largest


def write_weights(folder: Path) -> None:
    """Tiny random models, and LoRAs for the first one."""
    import torch
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict
    from tiny_models import write_tiny

    models = [write_tiny("sd15", folder / f"model{number}", seed=number) for number in range(MODELS)]
    loras = []
    for number in range(LORAS):
        pipe = StableDiffusionPipeline.from_pretrained(models[0], local_files_only=True)  # type: ignore[no-untyped-call]
        torch.manual_seed(number)
        pipe.unet.add_adapter(LoraConfig(r=4, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False))
        StableDiffusionPipeline.save_lora_weights(
            folder, unet_lora_layers=get_peft_model_state_dict(pipe.unet), weight_name=f"lora{number}.safetensors"
        )
        loras.append(str(folder / f"lora{number}.safetensors"))
    answer(models=[str(model) for model in models], loras=loras)


def count(output_dir: Path, file: Path) -> None:
    """One worker makes the sweep of models; how many texts it encodes."""
    from benchmarks.composing import CONF, composed, plan_of, worker_settings
    from benchmarks.plain_sweep import texts_counted
    from jobs.engines.messages import Ended, Message
    from jobs.engines.worker import Worker
    from jobs.planning.validation import validate

    sweep = json.loads(file.read_text(encoding="utf-8"))
    common = (*_common(sweep), "model=custom", f"output.dir={output_dir}")
    configs = [
        composed(f"sampling.guidance_scale={guidance}", f"model.source={model}", *common)
        for guidance in sweep["guidance"]
        for model in sweep["models"]
    ]
    batch = validate(configs, [CONF])
    messages: list[Message] = []
    with texts_counted() as texts:
        Worker(worker_settings(batch), messages.append, lambda: False).run(plan_of(batch).bundles())
    assert isinstance(messages[-1], Ended) and messages[-1].stop_kind is None, messages[-1]
    answer(texts=sum(texts))


if __name__ == "__main__":
    what, *paths = sys.argv[1:]
    (write_weights if what == "weights" else count)(*map(Path, paths))
