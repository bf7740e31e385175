"""Both hubs on one `HubServer`, and models for them: small stand-ins for tests, real architectures for use by hand.

The two protocols share no path, so that one address serves as `hub.huggingface_url` and as `hub.civitai_url`.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hub_civitai import File, Model, Version, add_civitai
from hub_huggingface import Repository, add_huggingface
from hub_server import HubServer

REPO = Path(__file__).resolve().parents[1]
PICKLE = b"\x80\x04\x95\x10\x00\x00\x00"
LARGE_RANK = 4_000
"""So many ranks of a LoRA for the tiny model have some 30 MB."""
CODE = b"raise SystemExit('this must never run')\n"


@dataclass
class Samples:
    """What the hubs offer."""

    repositories: list[Repository] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)


def add_hubs(server: HubServer, samples: Samples) -> None:
    """Serve both protocols; the lists may change afterwards."""
    add_huggingface(server, samples.repositories)
    add_civitai(server, samples.models)


def below(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their relative names."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def pipeline_repository(name: str, files: dict[str, bytes], pipeline_class: str) -> Repository:
    """A diffusers repository as they are published: with pickles, code and a single-file copy beside the weights."""
    decoys = {
        "README.md": b"---\nlicense: mit\n---\n# Tiny\n\nSteps: 4, CFG scale: 3<script>alert(1)</script>\n",
        ".gitattributes": b"*.safetensors filter=lfs\n",
        "unet/diffusion_pytorch_model.bin": PICKLE,
        "unet/modeling.py": CODE,
        "pipeline.py": CODE,
        "single_file.safetensors": files["unet/diffusion_pytorch_model.safetensors"],
        "safety_checker/config.json": b"{}",
        "safety_checker/pytorch_model.bin": PICKLE,
    }
    tags = ("diffusers", "safetensors", "text-to-image", f"diffusers:{pipeline_class}", "license:mit")
    return Repository(name, {**decoys, **files}, tags=tags, card={"license": "mit"}, downloads=1000)


def demo_repository(name: str = "tiny/demo") -> Repository:
    """The embedded model as a repository: small, sound, and it makes pictures."""
    from pipeline.weights.references import EMBEDDED

    files = {name: content for name, content in below(EMBEDDED["demo"]).items() if not name.endswith((".py", ".pyc"))}
    return Repository(name, files, card={"license": "apache-2.0"}, downloads=700)


def sample_models(large: bool = False) -> Samples:
    """Tiny models with random weights and real architecture, made on the spot; that takes some seconds.

    On Hugging Face `tiny/sdxl` (a diffusers repository), `tiny/demo` (the embedded model), `tiny/pixel-lora`, and
    `tiny/gated`, which can be seen and not fetched. On CivitAI version 101 (a Stable Diffusion 1.5 checkpoint in one
    file), 102 (a LoRA for it), and 103 to 106, which cannot be had: login, early access, no downloads, archived.
    `large`: also a LoRA of some 30 MB, on both: `tiny/large-lora` and version 107.
    """
    sys.path[:0] = [str(REPO), str(REPO / "examples")]  # as a script, only this folder is there
    from pipeline.loading.offline import import_libraries

    import_libraries()
    from build_tiny_models import write_lora
    from tiny_checkpoints import write_checkpoint
    from tiny_models import write_tiny

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sd15, sdxl = write_tiny("sd15", folder / "sd15"), write_tiny("sdxl", folder / "sdxl")
        checkpoint = write_checkpoint(sd15, folder / "checkpoint.safetensors").read_bytes()
        write_lora(sdxl / "unet", folder / "0.safetensors", 0)
        for seed in range(1, 6):
            write_lora(sd15 / "unet", folder / f"{seed}.safetensors", seed)
        if large:
            write_lora(sd15 / "unet", folder / "large.safetensors", 6, rank=LARGE_RANK)
            heavy = (folder / "large.safetensors").read_bytes()
        for_sdxl, *loras = [(folder / f"{seed}.safetensors").read_bytes() for seed in range(6)]
        for weights in [*sdxl.rglob("*.safetensors")]:
            write_half(weights, weights.with_suffix(".fp16.safetensors"))
        repository = pipeline_repository("tiny/sdxl", below(sdxl), "StableDiffusionXLPipeline")
    lora = Repository(
        "tiny/pixel-lora",
        {"pytorch_lora_weights.safetensors": for_sdxl, "README.md": b"# Pixels\n\nLoRA weight: 0.8\n"},
        tags=("diffusers", "lora", "text-to-image", "base_model:adapter:tiny/sdxl"),
        card={"instance_prompt": "pixel art", "base_model": "tiny/sdxl"},
        downloads=50,
    )
    gated = Repository("tiny/gated", {"model.safetensors": checkpoint}, gated="auto", downloads=9000)
    samples = Samples([repository, demo_repository(), lora, gated], civitai_models(checkpoint, loras))
    if large:
        samples.repositories.append(
            Repository("tiny/large-lora", {"large.safetensors": heavy}, tags=("diffusers", "lora"), downloads=60)
        )
        samples.models.append(Model(17, "Tiny Large", [Version(107, [File(1007, heavy, "large.safetensors")])], "LORA"))
    return samples


def write_half(source: Path, file: Path) -> None:
    """The same weights in 16 bit."""
    from safetensors.torch import load_file, save_file

    save_file({name: tensor.half() for name, tensor in load_file(source).items()}, file, metadata={"format": "pt"})


def listed(samples: Samples) -> list[str]:
    """The references of what is offered, with what keeps it from being had."""
    lines = [f"hf:{one.name}" + (" (gated)" if one.gated else "") for one in samples.repositories]
    for model in samples.models:
        for version in model.versions:
            shut = [word for word, is_so in (("login", version.login), ("early access", version.early_access_until),
                    ("no downloads", version.usage != "Download"), ("archived", model.mode)) if is_so]  # fmt: skip
            lines.append(f"civitai:{version.id} {model.name}" + (f" ({shut[0]})" if shut else ""))
    return lines


def civitai_models(checkpoint: bytes, loras: list[bytes]) -> list[Model]:
    """One model of each kind that matters, the free ones first."""
    free = {"allowNoCredit": True, "allowCommercialUse": ["Image"], "allowDerivatives": True}
    return [
        Model(
            11,
            "Tiny Dream",
            [Version(101, [File(1001, checkpoint, "tinyDream_v1.safetensors")], description="<p>Steps: 4</p>")],
            tags=("base model",),
            downloads=500,
            permissions=free,
        ),
        Model(
            12,
            "Tiny Strokes",
            [Version(102, [File(1002, loras[0], "tiny strokes.safetensors")], words=("tiny strokes", "ink"))],
            type="LORA",
            downloads=40,
            permissions=free,
        ),
        Model(13, "Tiny Login", [Version(103, [File(1003, loras[1])], login=True)], "LORA"),
        Model(14, "Tiny Early", [Version(104, [File(1004, loras[2])], early_access_until="2099-01-01")], "LORA"),
        Model(15, "Tiny Online", [Version(105, [File(1005, loras[3])], usage="Generation")], "LORA"),
        Model(16, "Tiny Archive", [Version(106, [File(1006, loras[4])])], "LORA", mode="Archived"),
    ]
