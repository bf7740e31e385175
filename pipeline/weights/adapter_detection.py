"""Detects weights that are used with a model: ControlNet, IP-Adapter, embedding, VAE, text encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.weights.headers.base import width_of
from pipeline.weights.model_files import Kind

Shapes = Mapping[str, tuple[int, ...]]

_UNET_WIDTHS = {768: ("sd15",), 1024: ("sd15",), 2048: ("sdxl",)}
_CONTROL_CLASSES = {
    "ControlNetUnionModel": "sdxl", "SD3ControlNetModel": "sd3", "FluxControlNetModel": "flux",
    "QwenImageControlNetModel": "qwen_image", "ZImageControlNetModel": "z_image", "SanaControlNetModel": "sana",
}  # fmt: skip
_VAE_PREFIXES = ("first_stage_model.", "vae.")
_EMBEDDING_TENSORS = 4
"""Embeddings hold one tensor, or one per text encoder and a few remarks."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A recognised file. Fields as in `FileFacts`; `families` are all that it fits."""

    kind: Kind
    families: tuple[str, ...]
    label: str
    class_name: str | None = None
    attention_width: int | None = None
    latent_channels: int | None = None
    vectors: int | None = None
    image_width: int | None = None


def detect_adapter(shapes: Shapes, class_name: str | None = None) -> Adapter | None:
    """The adapter with these tensors; None if it is none of the known ones.

    `class_name` is what a component's own configuration says, where it has one.
    """
    for find in (_ip_adapter, _controlnet, _vae, _text_encoder, _embedding):
        if found := find(shapes, class_name):
            return found
    return None


def is_ip_adapter(shapes: Shapes) -> bool:
    """Whether a file is an IP-Adapter; checked before LoRAs, since some IP-Adapters contain LoRA layers."""
    return any(name.startswith(("image_proj.", "ip_adapter_proj_model.")) for name in shapes)


def _ip_adapter(shapes: Shapes, class_name: str | None) -> Adapter | None:
    if not is_ip_adapter(shapes):
        return None
    width = next((s[1] for name, s in shapes.items() if name.endswith("to_k_ip.weight") and len(s) == 2), None)
    if any(name.startswith("double_blocks.") for name in shapes) or width == 4096:
        families: tuple[str, ...] = ("flux",)
    elif any(".norm_ip." in name for name in shapes):
        families = ("sd3",)
    else:
        families = _UNET_WIDTHS.get(width or 0, ("sd15", "sdxl"))
    image = next(
        (width_of(shapes[key]) for key in ("image_proj.proj.weight", "image_proj.proj_in.weight",
                                           "ip_adapter_proj_model.proj.weight") if key in shapes),
        None,
    )  # fmt: skip
    face = "image_proj.proj.0.weight" in shapes or any("lora" in name for name in shapes)
    return Adapter(
        "ip_adapter", families, "IP-Adapter FaceID" if face else "IP-Adapter", attention_width=width, image_width=image
    )


def _controlnet(shapes: Shapes, class_name: str | None) -> Adapter | None:
    prefix = "control_model." if any(name.startswith("control_model.") for name in shapes) else ""
    bare = {name.removeprefix(prefix): shape for name, shape in shapes.items()}
    if class_name not in _CONTROL_CLASSES:
        if class_name == "ControlNetModel" or "controlnet_cond_embedding.conv_in.weight" in bare or (
            "input_hint_block.0.weight" in bare and "input_blocks.0.0.weight" in bare
        ):  # fmt: skip
            return _unet_controlnet(bare)
        if "controlnet_x_embedder.weight" in bare:
            qwen = "transformer_blocks.0.img_mod.1.weight" in bare
            class_name = "QwenImageControlNetModel" if qwen else "FluxControlNetModel"
        elif "control_all_x_embedder.2-1.weight" in bare or "control_layers.0.adaLN_modulation.0.weight" in bare:
            class_name = "ZImageControlNetModel"
        elif "controlnet_blocks.0.weight" not in bare:
            return None
        elif "input_block.weight" in bare and "patch_embed.proj.weight" in bare:
            class_name = "SanaControlNetModel"
        elif "pos_embed_input.proj.weight" in bare:
            class_name = "SD3ControlNetModel"
        else:
            return None
    names = ("transformer_blocks.0.attn.to_q.weight", "transformer_blocks.0.attn1.to_q.weight",
             "control_layers.0.attention.to_q.weight")  # fmt: skip
    width = next((width_of(bare[name]) for name in names if name in bare), None)
    return Adapter("controlnet", (_CONTROL_CLASSES[class_name],), "ControlNet", class_name, width)


def _unet_controlnet(bare: Shapes) -> Adapter:
    width = next((s[1] for name, s in bare.items() if name.endswith("attn2.to_k.weight") and len(s) == 2), None)
    # Small ones for XL have no cross attention at all, and are known by XL's size conditioning.
    sized = "add_embedding.linear_1.weight" in bare or "label_emb.0.0.weight" in bare
    families = ("sdxl",) if sized else _UNET_WIDTHS.get(width or 0, ("sd15",))
    union = "task_embedding" in bare
    return Adapter("controlnet", families, "ControlNet", "ControlNetUnionModel" if union else "ControlNetModel", width)


def _vae(shapes: Shapes, class_name: str | None) -> Adapter | None:
    prefix = next((p for p in _VAE_PREFIXES if any(name.startswith(p) for name in shapes)), "")
    bare = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    first = bare.get("decoder.conv_in.weight") or bare.get("decoder.conv_in.conv.weight")
    known: str | None = None
    if "decoder.conv1.weight" in bare and "decoder.middle.0.residual.0.gamma" in bare:
        known, first = "AutoencoderKLQwenImage", bare["decoder.conv1.weight"]
    elif "decoder.layers.0.weight" in bare and "encoder.layers.0.weight" in bare:
        known, first = "AutoencoderTiny", bare["decoder.layers.0.weight"]
    elif "decoder.project_in.main.conv.weight" in bare:
        known, first = "AutoencoderDC", bare["decoder.project_in.main.conv.weight"]
    elif first is None:
        pass
    elif "decoder.mid.block_1.conv1.weight" in bare or "decoder.mid_block.resnets.0.conv1.weight" in bare:
        known = "AutoencoderKLQwenImage" if len(first) == 5 else "AutoencoderKL"
        known = "AutoencoderKLFlux2" if "bn.running_mean" in bare else known
    elif "decoder.up_blocks.0.0.conv.weight" in bare or "decoder.up_blocks.0.1.conv.weight" in bare:
        known = "AutoencoderDC"
    said = class_name if class_name and class_name.startswith(("Autoencoder", "AsymmetricAutoencoder")) else None
    if known is None and said is None:
        return None
    return Adapter("vae", (), f"VAE ({said or known})", said or known, latent_channels=width_of(first))


def _text_encoder(shapes: Shapes, class_name: str | None) -> Adapter | None:
    for key, label in (
        ("text_model.encoder.layers.0.self_attn.q_proj.weight", "CLIP text encoder"),
        ("encoder.layers.0.self_attn.q_proj.weight", "CLIP text encoder"),
        ("vision_model.encoder.layers.0.self_attn.q_proj.weight", "CLIP image encoder"),
        ("transformer.resblocks.0.attn.in_proj_weight", "OpenCLIP text encoder"),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", "T5 text encoder"),
        ("enc.blk.0.attn_q.weight", "T5 text encoder"),
        ("model.layers.0.self_attn.q_proj.weight", "language model"),
        ("language_model.layers.0.self_attn.q_proj.weight", "language model"),
        ("model.language_model.layers.0.self_attn.q_proj.weight", "language model"),
        ("layers.0.self_attn.q_proj.weight", "language model"),
        ("blk.0.attn_q.weight", "language model"),
    ):
        if key in shapes:
            return Adapter("text_encoder", (), label, class_name, attention_width=shapes[key][-1])
    if class_name and class_name.startswith(("CLIP", "T5", "Qwen", "Gemma", "Siglip")):
        return Adapter("text_encoder", (), class_name, class_name)
    return None


def _embedding(shapes: Shapes, class_name: str | None) -> Adapter | None:
    """A textual inversion: `clip_l` and `clip_g` for XL, `emb_params` of A1111, or one tensor named like its token."""
    if "clip_g" in shapes and "clip_l" in shapes:
        first, families = shapes["clip_l"], ("sdxl",)
    elif "emb_params" in shapes:
        first, families = shapes["emb_params"], ("sd15",)
    elif len(shapes) == 1:
        ((name, first),) = shapes.items()
        families = ("sd15",)
        if not name.startswith("<") and first[-1:] not in ((768,), (1024,)):
            return None  # any file of one tensor would be an embedding otherwise
    else:
        return None
    if not 1 <= len(first) <= 2 or len(shapes) > _EMBEDDING_TENSORS or 0 in first:
        return None
    label = f"embedding of {first[0] if len(first) == 2 else 1} vectors"
    return Adapter("embedding", families, label, attention_width=first[-1], vectors=first[0] if len(first) == 2 else 1)
