"""Three tiny models with random weights, two LoRAs for each, and the experiment that sweeps over all of them.

    python examples/build_tiny_models.py outputs/tiny
    python run.py -m --config-dir outputs/tiny/conf experiment=loras model=tiny_sd15,tiny_sdxl,tiny_flux

writes an SDXL folder, a FLUX.1 folder and a Stable Diffusion 1.5 single file, all of real architecture and under 10 MB
together, so that everything can be tried without a download or a GPU. For Stable Diffusion there are also a ControlNet,
an IP-Adapter and a picture for them. All paint noise.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

SIZES = {"tiny_sd15": 32, "tiny_sdxl": 32, "tiny_flux": 32}
LORAS = ("one", "two")


def main(folder: Path) -> None:
    """Write everything below `folder`, which must not exist yet."""
    from pipeline.loading.offline import import_libraries

    import_libraries()
    from tiny_checkpoints import write_checkpoint
    from tiny_models import write_tiny

    folder.mkdir(parents=True)
    parts = write_tiny("sd15", folder / "tiny_sd15_parts")
    write_checkpoint(parts, folder / "tiny_sd15.safetensors")
    write_tiny("sdxl", folder / "tiny_sdxl")
    write_tiny("flux", folder / "tiny_flux")
    sources = {
        "tiny_sd15": {"source": str(folder / "tiny_sd15.safetensors"), "config": str(parts)},
        "tiny_sdxl": {"source": str(folder / "tiny_sdxl")},
        "tiny_flux": {"source": str(folder / "tiny_flux")},
    }
    denoisers = {"tiny_sd15": parts / "unet", "tiny_sdxl": folder / "tiny_sdxl" / "unet",
                 "tiny_flux": folder / "tiny_flux" / "transformer"}  # fmt: skip
    for name, profile in sources.items():
        for seed, lora in enumerate(LORAS):
            write_lora(denoisers[name], folder / "loras" / name / f"{lora}.safetensors", seed)
        sampling = {"steps": 4, "guidance_scale": 3.0, "width": SIZES[name], "height": SIZES[name]}
        write_yaml(folder / "conf" / "model" / f"{name}.yaml", {**profile, "name": name, "sampling": sampling})
    write_adapters(parts / "unet", folder)
    write_yaml(folder / "conf" / "experiment" / "loras.yaml", experiment(folder), "# @package _global_\n")
    print(f"written to {folder}; now\n  python run.py -m --config-dir {folder}/conf experiment=loras "
          f"model={','.join(sources)}")  # fmt: skip


def experiment(folder: Path) -> dict[str, Any]:
    """Two LoRAs in a grid, each alone at two weights, both together, and neither; per model those that fit it."""

    def lora(name: str, weight: float) -> dict[str, Any]:
        return {"source": f"{folder}/loras/${{model.name}}/{name}.safetensors", "weight": weight}

    alone = [[lora(name, weight)] for name in LORAS for weight in (0.5, 1.0)]
    both = [[lora(name, 0.7) for name in LORAS]]
    return {
        "name": "loras",
        "prompts": {"lines": ["a red house by the sea", "a boat at night"]},
        "seeds": [1, 2],
        "grid": {"adapters.loras": [[], *alone, *both]},
    }


def write_adapters(unet: Path, folder: Path) -> None:
    """`controlnet/` and `ip_adapter/` for a UNet, and `picture.png`."""
    from adapter_files import write_controlnet, write_ip_adapter, write_picture
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel.from_pretrained(unet)
    write_controlnet(folder / "controlnet", model)
    write_ip_adapter(folder / "ip_adapter", model)
    write_picture(folder / "picture.png")


def write_lora(denoiser: Path, file: Path, seed: int, rank: int = 4, base: str | None = None) -> None:
    """A LoRA in diffusers' own format for every attention projection of a denoiser, with random weights.

    `base` is what a trainer says of the model that it is for; tiny layers are those of no known one.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    with safe_open(next(denoiser.glob("*.safetensors")), framework="pt") as weights:
        for key in weights.keys():  # noqa: SIM118 - no mapping
            if not key.endswith((".to_q.weight", ".to_v.weight")):
                continue
            outputs, inputs = weights.get_slice(key).get_shape()
            layer = f"{denoiser.name}.{key.removesuffix('.weight')}"
            tensors[f"{layer}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator)
            tensors[f"{layer}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file, metadata={"ss_base_model_version": base} if base else None)


def write_yaml(file: Path, document: dict[str, Any], head: str = "") -> None:
    """A configuration file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(head + yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2 or Path(sys.argv[1]).exists():
        sys.exit("usage: python examples/build_tiny_models.py FOLDER, where FOLDER does not exist yet")
    main(Path(sys.argv[1]))
