"""The known model families: their diffusers classes, and the facts that are needed before loading.

How prompts are encoded, denoised and decoded is not said here: that is read off the pipelines themselves. Parameter
counts are those of the published weights, counted on the meta device from the published configurations; they serve to
plan for models that are not on this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture. Sizes are pixels; a request's sides must be multiples of `size_multiple`.

    `guidance`: `cfg` is classifier-free guidance above 1; `embedded` is a number that a distilled model was given,
    without a negative prompt; `true_cfg` is classifier-free guidance by the argument `true_cfg_scale`. `img2img` and
    `controlnet` are diffusers' pipelines for these tasks, None where there is none; `lora` and `ip_adapter` say whether
    it can load these. `doubles_batch`: guidance runs both prompts in one forward pass.
    `float16`: whether its denoiser stays within that type's range; for those that do not, ComfyUI
    (`supported_models.py`, `supported_inference_dtypes`) allows bfloat16 and float32 alone.
    `decode_elements_per_pixel` is the working memory of the decoder, in elements of its dtype: with 1650, that of SDXL
    comes to the 3.2 GiB that were published for 1024 x 1024 in 16 bits; InvokeAI reserves a third more
    (`vae_working_memory.py`). `batch` is the number of images of the native size after which larger batches no longer
    pay on a GPU.
    """

    name: str
    label: str
    pipeline_class: str
    denoiser: str
    denoiser_class: str
    size: int
    parameters: Mapping[str, float] = field(default_factory=dict)
    size_multiple: int = 8
    flow_matching: bool = True
    guidance: str = "cfg"
    doubles_batch: bool = False
    img2img: str | None = None
    controlnet: str | None = None
    controlnet_img2img: str | None = None
    lora: bool = True
    float16: bool = True
    ip_adapter: bool = False
    latent_channels: int = 16
    decode_elements_per_pixel: int = 1650
    batch: int = 1


_CLIP_L, _CLIP_G, _T5_XXL = 0.123e9, 0.695e9, 4.762e9
_KL = 0.084e9

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            "sd15", "Stable Diffusion 1.5", "StableDiffusionPipeline", "unet", "UNet2DConditionModel", 512,
            {"unet": 0.860e9, "text_encoder": _CLIP_L, "vae": _KL},
            flow_matching=False, doubles_batch=True, img2img="StableDiffusionImg2ImgPipeline",
            controlnet="StableDiffusionControlNetPipeline",
            controlnet_img2img="StableDiffusionControlNetImg2ImgPipeline",
            ip_adapter=True, latent_channels=4, batch=8,
        ),
        Family(
            "sdxl", "Stable Diffusion XL", "StableDiffusionXLPipeline", "unet", "UNet2DConditionModel", 1024,
            {"unet": 2.567e9, "text_encoder": _CLIP_L, "text_encoder_2": _CLIP_G, "vae": _KL},
            flow_matching=False, doubles_batch=True, img2img="StableDiffusionXLImg2ImgPipeline",
            controlnet="StableDiffusionXLControlNetPipeline",
            controlnet_img2img="StableDiffusionXLControlNetImg2ImgPipeline",
            ip_adapter=True, latent_channels=4, batch=4,
        ),
        Family(
            "sd3", "Stable Diffusion 3.5", "StableDiffusion3Pipeline", "transformer", "SD3Transformer2DModel", 1024,
            {"transformer": 2.243e9, "text_encoder": _CLIP_L, "text_encoder_2": _CLIP_G, "text_encoder_3": _T5_XXL,
             "vae": _KL},
            size_multiple=16, doubles_batch=True, img2img="StableDiffusion3Img2ImgPipeline",
            controlnet="StableDiffusion3ControlNetPipeline", ip_adapter=True, batch=2,
        ),
        Family(
            "flux", "FLUX.1", "FluxPipeline", "transformer", "FluxTransformer2DModel", 1024,
            {"transformer": 11.90e9, "text_encoder": _CLIP_L, "text_encoder_2": _T5_XXL, "vae": _KL},
            size_multiple=16, guidance="embedded", img2img="FluxImg2ImgPipeline",
            controlnet="FluxControlNetPipeline", controlnet_img2img="FluxControlNetImg2ImgPipeline",
            ip_adapter=True,
        ),
        Family(
            "flux2_klein", "FLUX.2 klein", "Flux2KleinPipeline", "transformer", "Flux2Transformer2DModel", 1024,
            {"transformer": 3.876e9, "text_encoder": 4.02e9, "vae": _KL},
            size_multiple=16, latent_channels=32,
        ),
        Family(
            "qwen_image", "Qwen-Image", "QwenImagePipeline", "transformer", "QwenImageTransformer2DModel", 1328,
            {"transformer": 20.43e9, "text_encoder": 8.29e9, "vae": 0.127e9},
            size_multiple=16, guidance="true_cfg", img2img="QwenImageImg2ImgPipeline",
            controlnet="QwenImageControlNetPipeline", float16=False, decode_elements_per_pixel=2000,
        ),
        Family(
            "z_image", "Z-Image", "ZImagePipeline", "transformer", "ZImageTransformer2DModel", 1024,
            {"transformer": 6.155e9, "text_encoder": 4.02e9, "vae": _KL},
            size_multiple=16, img2img="ZImageImg2ImgPipeline", float16=False,
        ),
        Family(
            "sana", "Sana", "SanaPipeline", "transformer", "SanaTransformer2DModel", 1024,
            {"transformer": 1.604e9, "text_encoder": 2.614e9, "vae": 0.312e9},
            size_multiple=32, doubles_batch=True, controlnet="SanaControlNetPipeline", latent_channels=32,
            batch=4,
        ),
        Family(
            "pixart_sigma", "PixArt-Sigma", "PixArtSigmaPipeline", "transformer", "PixArtTransformer2DModel", 1024,
            {"transformer": 0.611e9, "text_encoder": _T5_XXL, "vae": _KL},
            lora=False, size_multiple=16, flow_matching=False, doubles_batch=True, latent_channels=4, batch=4,
        ),
        Family(
            "lumina2", "Lumina-Image 2.0", "Lumina2Pipeline", "transformer", "Lumina2Transformer2DModel", 1024,
            {"transformer": 2.610e9, "text_encoder": 2.614e9, "vae": _KL},
            size_multiple=16, float16=False, batch=2,
        ),
        Family(
            "chroma", "Chroma", "ChromaPipeline", "transformer", "ChromaTransformer2DModel", 1024,
            {"transformer": 8.90e9, "text_encoder": _T5_XXL, "vae": _KL},
            size_multiple=16, img2img="ChromaImg2ImgPipeline",
        ),
    )
}  # fmt: skip
"""Every family by its name."""

ENCODES_CONTROL_IMAGES = ("sd3", "flux", "qwen_image", "sana")
"""Families whose ControlNets read what the VAE makes of the picture (`vae.encode` in their pipelines' calls)."""

_BASE_MODELS: dict[str, tuple[str, ...]] = {
    "sd15": ("SD1", "SD 1.4", "SD 1.5", "SD 1.5 LCM", "SD 1.5 Hyper"),
    "sdxl": ("SDXL", "SDXL 0.9", "SDXL 1.0", "SDXL 1.0 LCM", "SDXL Lightning", "SDXL Hyper", "SDXL Turbo",
             "SDXL Distilled", "Pony", "Illustrious", "NoobAI"),
    "sd3": ("SD 3", "SD 3.5", "SD 3.5 Medium", "SD 3.5 Large", "SD 3.5 Large Turbo"),
    "flux": ("Flux.1 D", "Flux.1 S"),
    "flux2_klein": ("Flux.2 Klein 4B", "Flux.2 Klein 4B-base", "Flux.2 Klein 9B", "Flux.2 Klein 9B-base"),
    "qwen_image": ("Qwen",),
    "z_image": ("ZImageTurbo", "ZImageBase"),
    "lumina2": ("Lumina",),
    "chroma": ("Chroma",),
}  # fmt: skip
"""The names that people and hubs give to base models: CivitAI's, and A1111's in notes on LoRAs."""

_BY_BASE_MODEL = {base: family for family, bases in _BASE_MODELS.items() for base in bases}
_BY_PIPELINE = {family.pipeline_class: family for family in FAMILIES.values()}


def family_of(pipeline_class: str) -> Family | None:
    """The family with this text-to-image pipeline class; None for the many others that diffusers can run."""
    return _BY_PIPELINE.get(pipeline_class)


def family_of_base(base_model: str) -> str | None:
    """The family that runs models of this base; None for unknown bases.

    What tensors tell goes before such a name.
    """
    return _BY_BASE_MODEL.get(base_model)
