"""What a careful user of diffusers would write for a sweep, one call per image; see `sweeps.py`.

    python -m benchmarks.plain_sweep models SWEEP.json FOLDER      each cell loads its model, in the order given
    python -m benchmarks.plain_sweep switching SWEEP.json FOLDER   all LoRAs loaded once, `set_adapters` before an image
    python -m benchmarks.plain_sweep reloading SWEEP.json FOLDER   `load_lora_weights`, an image, unloaded again

Same weights, prompts, seeds, steps and format as the sweep it is compared with; no record, no journal, no resume. The
last line says how long it took from the first loaded model on, how often a model was loaded, and how many texts went
through a text encoder.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def texts_counted() -> Iterator[list[int]]:
    """Yields a list that grows by the number of texts whenever CLIP encodes some."""
    from transformers import CLIPTextModel

    counts: list[int] = []
    forward = CLIPTextModel.forward

    def counting(self: Any, input_ids: Any = None, *arguments: Any, **more: Any) -> Any:
        counts.append(len(input_ids))
        return forward(self, input_ids, *arguments, **more)

    CLIPTextModel.forward = counting  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        CLIPTextModel.forward = forward  # type: ignore[method-assign]


class Sweep:
    """The loops. `started` is when the first model was there."""

    def __init__(self, sweep: dict[str, Any], folder: Path) -> None:
        self.sweep, self.folder = sweep, folder
        self.loads = 0
        self.started = 0.0
        folder.mkdir(parents=True)

    def models(self) -> None:
        """Cell by cell: a cell is a model with a guidance scale, models varying fastest."""
        for guidance in self.sweep["guidance"]:
            for model in self.sweep["models"]:
                pipe = self._load(model)
                for prompt, seed, stem in self._images():
                    self._make(pipe, prompt, seed, guidance, f"{Path(model).name}_{stem}_{guidance:g}")

    def switching(self) -> None:
        """All LoRAs stay on the model; each image names the one it wants."""
        pipe = self._load(self.sweep["models"][0])
        for lora in self.sweep["loras"]:
            pipe.load_lora_weights(Path(lora).parent, weight_name=Path(lora).name, adapter_name=Path(lora).stem)
        self._with_loras(pipe, lambda lora, weight: pipe.set_adapters([Path(lora).stem], [weight]), lambda: None)

    def reloading(self) -> None:
        """Each image loads its LoRA and takes it off again."""
        pipe = self._load(self.sweep["models"][0])

        def put_on(lora: str, weight: float) -> None:
            pipe.load_lora_weights(Path(lora).parent, weight_name=Path(lora).name, adapter_name="one")
            pipe.set_adapters(["one"], [weight])

        self._with_loras(pipe, put_on, pipe.unload_lora_weights)

    def _with_loras(self, pipe: Any, put_on: Callable[[str, float], None], take_off: Callable[[], None]) -> None:
        (guidance,) = self.sweep["guidance"]
        for lora in self.sweep["loras"]:
            for weight in self.sweep["weights"]:
                for prompt, seed, stem in self._images():
                    put_on(lora, weight)
                    self._make(pipe, prompt, seed, guidance, f"{Path(lora).stem}_{weight:g}_{stem}")
                    take_off()

    def _images(self) -> Iterator[tuple[str, int, str]]:
        for index, prompt in enumerate(self.sweep["prompts"]):
            for seed in self.sweep["seeds"]:
                yield prompt, seed, f"{index}_{seed}"

    def _load(self, model: str) -> Any:
        from diffusers import StableDiffusionPipeline

        pipe = StableDiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
            model, use_safetensors=True, local_files_only=True
        )
        pipe.set_progress_bar_config(disable=True)
        self.loads += 1
        self.started = self.started or time.perf_counter()
        return pipe

    def _make(self, pipe: Any, prompt: str, seed: int, guidance: float, stem: str) -> None:
        import torch

        with torch.inference_mode():
            image = pipe(
                prompt,
                num_inference_steps=self.sweep["steps"],
                guidance_scale=guidance,
                generator=torch.Generator("cpu").manual_seed(seed),
            ).images[0]
        image.save(self.folder / f"{stem}.png")


def main(what: str, file: Path, folder: Path) -> None:
    """Make every image of a sweep and say what it took."""
    sweep = Sweep(json.loads(file.read_text(encoding="utf-8")), folder)
    with texts_counted() as texts:
        {"models": sweep.models, "switching": sweep.switching, "reloading": sweep.reloading}[what]()
    seconds = time.perf_counter() - sweep.started
    print(json.dumps({"generate_s": seconds, "loads": sweep.loads, "texts": sum(texts)}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
