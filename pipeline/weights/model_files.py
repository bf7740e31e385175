"""The results of inspection: of a model that makes pictures, and of any single weights file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.weights.families import family_of

Layout = Literal["folder", "checkpoint", "denoiser"]
"""A diffusers folder, a single file with encoder and VAE, a single file without them."""

Kind = Literal[
    "checkpoint", "denoiser", "lora", "vae", "controlnet", "embedding", "ip_adapter", "text_encoder"
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Component:
    """One part of a model. `file_bytes` are those of its tensors; `dtype` is the most common one."""

    name: str
    class_name: str
    parameters: int
    file_bytes: int
    dtype: str | None
    files: tuple[Path, ...]
    quantization: str | None = None

    @property
    def stays_quantized(self) -> bool:
        """Whether its weights stay quantised in memory as in the file. Plain float8 is loaded in 16 bits."""
        return self.quantization not in (None, "float8")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A valid model: the files that its pictures depend on, and its family and properties.

    `width` and `height` are pixels. `max_clip_skip` is how many layers of the text encoders can be left out, where
    that is known.
    `config` is the folder that has what a single file leaves out. `prediction_type` is None where nothing says it and
    for flow-matching models; what the weights say of it is already in `scheduler_config`. `guidance_distilled`: a
    guidance scale changes nothing. `attention_width`: see `FileFacts`. `notes` are sentences for people.
    """

    path: Path
    layout: Layout
    pipeline_class: str
    family: str | None
    label: str
    files: tuple[Path, ...]
    variant: str | None
    scheduler_class: str
    scheduler_config: dict[str, Any]
    max_clip_skip: int | None
    width: int
    height: int
    components: tuple[Component, ...] = ()
    denoiser: str = "unet"
    prediction_type: str | None = None
    zero_snr: bool = False
    quantization: str | None = None
    guidance_distilled: bool = False
    latent_channels: int | None = None
    attention_width: int | None = None
    config: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def flow_matching(self) -> bool:
        """Whether it was trained on a flow: as its family is, else what its own scheduler is made for.

        Several classes of schedulers can do both, and say which in their settings.
        """
        if family := family_of(self.pipeline_class):
            return family.flow_matching
        return "FlowMatch" in self.scheduler_class or bool(self.scheduler_config.get("use_flow_sigmas"))

    def component(self, name: str) -> Component | None:
        """The component of this name, if the model has it with weights."""
        return next((component for component in self.components if component.name == name), None)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """The result of inspecting one weights file, or the folder of one component.

    `families` are all names of `FAMILIES` that the tensors fit, several where names and shapes do not tell them apart,
    none where nothing is known; `label` says in words what it is. `attention_width` is the width of what a UNet's cross
    attention reads (768 in SD 1.5), and in transformers that of the hidden states; of a LoRA, that of the model it was
    made for. `prefix` stands before the denoiser's tensor names. `ranks` are a LoRA's, ascending, `network` its kind,
    `for_denoiser` and `for_encoders` the numbers that it adds to them. `vectors` counts an embedding's tokens.
    `image_width` is what an IP-Adapter expects of its image encoder.
    """

    path: Path
    kind: Kind
    families: tuple[str, ...]
    label: str
    format: str
    files: tuple[Path, ...]
    parameters: int
    file_bytes: int
    dtypes: tuple[str, ...]
    layout: Literal["original", "diffusers"] | None = None
    prefix: str = ""
    class_name: str | None = None
    quantization: str | None = None
    prediction_type: str | None = None
    zero_snr: bool = False
    guidance_embedded: bool | None = None
    blocks: int | None = None
    attention_width: int | None = None
    latent_channels: int | None = None
    components: tuple[Component, ...] = ()
    ranks: tuple[int, ...] = ()
    network: str | None = None
    trains_text_encoder: bool = False
    for_denoiser: int = 0
    for_encoders: int = 0
    vectors: int | None = None
    image_width: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def family(self) -> str | None:
        """The family, if only one fits."""
        return self.families[0] if len(self.families) == 1 else None

    @property
    def dtype(self) -> str | None:
        """The dtype of most bytes."""
        return self.dtypes[0] if self.dtypes else None
