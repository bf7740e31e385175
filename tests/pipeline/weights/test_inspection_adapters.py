"""What stands beside a model is known by its header: LoRA, VAE, ControlNet, embedding, IP-Adapter, text encoder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from published_weights import PUBLISHED, diffusers_shapes, prefixed, published_shapes, write_header

from pipeline.errors import ModelError
from pipeline.weights.denoiser_detection import detect
from pipeline.weights.families import FAMILIES
from pipeline.weights.inspection import FileFacts, inspect_file

Shapes = dict[str, tuple[int, ...]]


def lora(module: str, inside: int, outside: int, rank: int = 8, *, style: str = "kohya") -> Shapes:
    """One adapted layer in the style of a trainer."""
    down, up = {
        "kohya": (".lora_down.weight", ".lora_up.weight"),
        "peft": (".lora_A.weight", ".lora_B.weight"),
        "named": (".lora_A.default.weight", ".lora_B.default.weight"),
        "old": (".lora.down.weight", ".lora.up.weight"),
        "linear": (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
        "xlabs": ("_lora1.down.weight", "_lora1.up.weight"),
    }[style]
    tensors: Shapes = {module + down: (rank, inside), module + up: (outside, rank)}
    return tensors | ({module + ".alpha": ()} if style == "kohya" else {})


def facts_of(shapes: Shapes, folder: Path, metadata: dict[str, str] | None = None) -> FileFacts:
    return inspect_file(write_header(folder / "adapter.safetensors", shapes, metadata=metadata))


UNET = "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
DOTTED = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
LORAS: dict[str, tuple[Shapes, tuple[str, ...], int | None]] = {
    "SD 1.5, kohya": (lora(f"lora_unet_{UNET}", 768, 640), ("sd15",), 768),
    "SD 2.x, kohya": (lora(f"lora_unet_{UNET}", 1024, 640), ("sd15",), 1024),
    "SDXL, kohya": (
        lora("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 2048, 640), ("sdxl",), 2048,
    ),
    "SDXL, diffusers": (lora(f"unet.{DOTTED}", 2048, 640, style="peft"), ("sdxl",), 2048),
    "SDXL, early diffusers": (lora(f"unet.{DOTTED}", 2048, 640, style="linear"), ("sdxl",), 2048),
    "SDXL, stacked blocks only": (
        lora("unet.down_blocks.2.attentions.0.transformer_blocks.7.attn1.to_q", 1280, 1280, style="old"),
        ("sdxl",), None,
    ),
    "SD 1.5, full resolution only": (
        lora("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", 320, 320), ("sd15",), None,
    ),
    "SD 3.5, original names": (
        lora("diffusion_model.joint_blocks.0.x_block.attn.qkv", 2432, 7296, style="peft"), ("sd3",), 2432,
    ),
    "SD 3, diffusers": (
        lora("transformer.transformer_blocks.0.attn.to_q", 1536, 1536, style="peft"), ("sd3",), 1536,
    ),
    "FLUX.1, kohya": (
        lora("lora_unet_double_blocks_18_img_attn_qkv", 3072, 9216)
        | lora("lora_unet_single_blocks_0_modulation_lin", 3072, 9216), ("flux",), 3072,
    ),
    "FLUX.1 or Chroma, linear1": (
        lora("diffusion_model.single_blocks.0.linear1", 3072, 21504, style="peft"), ("flux", "chroma"), 3072,
    ),
    "FLUX.1, XLabs": (lora("double_blocks.0.processor.qkv", 3072, 9216, style="xlabs"), ("flux",), 3072),
    "FLUX.1 or Chroma, diffusers": (
        lora("transformer.transformer_blocks.0.attn.to_q", 3072, 3072, style="peft")
        | lora("transformer.single_transformer_blocks.0.attn.to_q", 3072, 3072, style="peft"),
        ("flux", "chroma"), 3072,
    ),
    "Chroma": (
        lora("lora_unet_distilled_guidance_layer_in_proj", 64, 5120), ("chroma",), None,
    ),
    "FLUX.2 klein, original names": (
        lora("diffusion_model.single_blocks.0.linear1", 3072, 27648, style="peft"), ("flux2_klein",), 3072,
    ),
    "FLUX.2 klein, diffusers": (
        lora("transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj", 3072, 27648, style="peft"),
        ("flux2_klein",), None,
    ),
    "Qwen-Image": (
        lora("transformer_blocks.0.attn.to_q", 3072, 3072, style="named")
        | lora("transformer_blocks.0.img_mlp.net.2", 12288, 3072, style="named"), ("qwen_image",), 3072,
    ),
    "Qwen-Image, late block only": (
        lora("transformer.transformer_blocks.59.attn.to_q", 3072, 3072, style="peft"), ("qwen_image",), 3072,
    ),
    "Z-Image, diffusers": (lora("transformer.layers.0.attention.to_q", 3840, 3840, style="peft"), ("z_image",), 3840),
    "Z-Image, original names": (
        lora("diffusion_model.layers.0.attention.qkv", 3840, 11520, style="peft"), ("z_image",), 3840,
    ),
    "Lumina 2, kohya": (lora("lora_unet_layers_0_attention_qkv", 2304, 3840), ("lumina2",), 2304),
    "Lumina 2, diffusers": (lora("transformer.layers.0.attn.to_q", 2304, 2304, style="peft"), ("lumina2",), 2304),
    "Sana": (lora("transformer.transformer_blocks.0.attn1.to_q", 2240, 2240, style="peft"), ("sana",), 2240),
    "PixArt": (
        lora("transformer.transformer_blocks.0.ff.net.0.proj", 1152, 4608, style="peft"), ("pixart_sigma",), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LORAS)
def test_lora_says_which_family_it_was_made_for(case: str, tmp_path: Path) -> None:
    shapes, families, width = LORAS[case]
    facts = facts_of(shapes, tmp_path)
    assert facts.kind == "lora"
    assert facts.families == families
    assert facts.attention_width == width
    assert (facts.network, facts.ranks, facts.trains_text_encoder) == ("LoRA", (8,), False)


def test_lora_ranks_and_text_encoder_are_told(tmp_path: Path) -> None:
    shapes = (
        lora(f"lora_unet_{UNET}", 768, 640, rank=32)
        | lora("lora_unet_mid_block_attentions_0_proj_in", 1280, 1280, rank=4)
        | lora("lora_te_text_model_encoder_layers_0_mlp_fc1", 768, 3072, rank=16)
    )
    facts = facts_of(shapes, tmp_path)
    assert (facts.ranks, facts.trains_text_encoder, facts.family) == ((4, 16, 32), True, "sd15")


def test_second_text_encoder_means_xl_whatever_the_widths_are(tmp_path: Path) -> None:
    shapes = lora(f"unet.{DOTTED}", 64, 32, style="peft") | lora("text_encoder_2.layers.0.q", 32, 32, style="peft")
    facts = facts_of(shapes, tmp_path)
    assert (facts.families, facts.attention_width) == (("sdxl",), 64)


def test_width_that_no_published_model_has_leaves_the_family_open(tmp_path: Path) -> None:
    facts = facts_of(lora(f"unet.{DOTTED}", 32, 32, style="peft"), tmp_path)
    assert (facts.family, facts.families, facts.attention_width) == (None, ("sd15", "sdxl"), 32)


def test_remark_of_the_trainer_decides_between_families_that_fit_and_no_others(tmp_path: Path) -> None:
    shapes = LORAS["FLUX.1 or Chroma, diffusers"][0]
    assert facts_of(shapes, tmp_path, {"ss_base_model_version": "chroma"}).family == "chroma"
    assert facts_of(shapes, tmp_path, {"modelspec.architecture": "flux-1-dev/lora"}).family == "flux"
    assert facts_of(shapes, tmp_path, {"ss_base_model_version": "sdxl_base_v1-0"}).families == ("flux", "chroma")


def test_lora_of_an_unknown_family_is_a_lora_of_none(tmp_path: Path) -> None:
    facts = facts_of(lora("diffusion_model.blocks.0.self_attn.q", 5120, 5120, style="peft"), tmp_path)
    assert (facts.kind, facts.families) == ("lora", ())
    assert "not known here" in facts.label


@pytest.mark.parametrize(
    ("network", "parts"),
    [
        ("LoHa", {"hada_w1_a": (640, 4), "hada_w1_b": (4, 768), "hada_w2_a": (640, 4), "hada_w2_b": (4, 768)}),
        ("LoKr", {"lokr_w1": (16, 16), "lokr_w2_a": (40, 4), "lokr_w2_b": (4, 48)}),
    ],
)
def test_lycoris_networks_tell_width_and_rank(network: str, parts: Shapes, tmp_path: Path) -> None:
    facts = facts_of(prefixed(parts, f"lora_unet_{UNET}."), tmp_path)
    assert (facts.network, facts.family, facts.attention_width, facts.ranks) == (network, "sd15", 768, (4,))


@pytest.mark.parametrize(
    ("class_name", "options", "channels"),
    [
        ("AutoencoderKL", {"latent_channels": 4}, 4),
        ("AutoencoderKL", {"latent_channels": 16}, 16),
        ("AutoencoderKLFlux2", {}, 32),
        ("AutoencoderKLQwenImage", {}, 16),
        ("AutoencoderDC", {}, 32),
        ("AutoencoderTiny", {}, 4),
    ],
)
def test_vae_says_its_class_and_latent_channels(
    class_name: str, options: dict[str, int], channels: int, tmp_path: Path
) -> None:
    facts = facts_of(diffusers_shapes(class_name, **options), tmp_path)
    assert (facts.kind, facts.class_name, facts.latent_channels) == ("vae", class_name, channels)


def test_vae_of_the_authors_layout_is_known_too(tmp_path: Path) -> None:
    shapes = {"encoder.conv_in.weight": (128, 3, 3, 3), "decoder.conv_in.weight": (512, 16, 3, 3),
              "decoder.mid.block_1.conv1.weight": (512, 512, 3, 3)}  # fmt: skip
    for prefix in ("", "first_stage_model.", "vae."):
        facts = facts_of(prefixed(shapes, prefix), tmp_path)
        assert (facts.kind, facts.class_name, facts.latent_channels) == ("vae", "AutoencoderKL", 16)


@pytest.mark.parametrize(
    ("class_name", "options", "family", "width"),
    [
        ("ControlNetModel", {"cross_attention_dim": 768}, "sd15", 768),
        ("ControlNetModel", {"cross_attention_dim": 2048, "addition_embed_type": "text_time",
                             "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816},
         "sdxl", 2048),
        ("FluxControlNetModel", {"num_layers": 2, "num_single_layers": 0}, "flux", 3072),
        ("SD3ControlNetModel", {"num_layers": 2}, "sd3", 1152),
        ("QwenImageControlNetModel", {"num_layers": 2}, "qwen_image", 3072),
        ("SanaControlNetModel", {"num_layers": 2}, "sana", 2240),
    ],
)  # fmt: skip
def test_controlnet_says_its_family(
    class_name: str, options: dict[str, object], family: str, width: int, tmp_path: Path
) -> None:
    facts = facts_of(diffusers_shapes(class_name, **options), tmp_path)
    assert (facts.kind, facts.family, facts.attention_width) == ("controlnet", family, width)
    assert facts.class_name == class_name


def test_controlnet_of_the_authors_layout_is_known_too(tmp_path: Path) -> None:
    shapes = {"control_model.input_hint_block.0.weight": (16, 3, 3, 3),
              "control_model.input_blocks.0.0.weight": (320, 4, 3, 3),
              "control_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight": (1280, 768)}  # fmt: skip
    facts = facts_of(shapes, tmp_path)
    assert (facts.kind, facts.family, facts.attention_width) == ("controlnet", "sd15", 768)


@pytest.mark.parametrize(
    ("shapes", "family", "width", "vectors"),
    [
        ({"emb_params": (4, 768)}, "sd15", 768, 4),
        ({"emb_params": (2, 1024)}, "sd15", 1024, 2),
        ({"<cat-toy>": (768,)}, "sd15", 768, 1),
        ({"cat": (3, 768)}, "sd15", 768, 3),
        ({"clip_l": (8, 768), "clip_g": (8, 1280)}, "sdxl", 768, 8),
    ],
)
def test_embedding_says_its_family_and_vectors(
    shapes: Shapes, family: str, width: int, vectors: int, tmp_path: Path
) -> None:
    facts = facts_of(shapes, tmp_path)
    assert (facts.kind, facts.family, facts.attention_width, facts.vectors) == ("embedding", family, width, vectors)


@pytest.mark.parametrize(
    ("shapes", "families", "label"),
    [
        ({"image_proj.proj.weight": (3072, 1024), "ip_adapter.1.to_k_ip.weight": (320, 768)}, ("sd15",), "IP-Adapter"),
        ({"image_proj.proj.weight": (8192, 1280), "ip_adapter.1.to_k_ip.weight": (640, 2048)}, ("sdxl",), "IP-Adapter"),
        ({"image_proj.proj_in.weight": (1280, 1152), "ip_adapter.0.to_k_ip.weight": (2432, 2432),
          "ip_adapter.0.norm_ip.linear.weight": (9728, 1280)}, ("sd3",), "IP-Adapter"),
        ({"image_proj.proj.0.weight": (1024, 512), "ip_adapter.1.to_k_ip.weight": (320, 768),
          "ip_adapter.0.to_q_lora.down.weight": (128, 320)}, ("sd15",), "IP-Adapter FaceID"),
    ],
)  # fmt: skip
def test_ip_adapter_says_its_family(shapes: Shapes, families: tuple[str, ...], label: str, tmp_path: Path) -> None:
    facts = facts_of(shapes, tmp_path)
    assert (facts.kind, facts.families, facts.label) == ("ip_adapter", families, label)
    image = next((shape[1] for name, shape in shapes.items() if name.startswith("image_proj.proj")), None)
    assert facts.image_width == (None if "FaceID" in label else image)


def test_text_encoder_is_known(tmp_path: Path) -> None:
    for key, label in (
        ("text_model.encoder.layers.0.self_attn.q_proj.weight", "CLIP"),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", "T5"),
        ("model.layers.0.self_attn.q_proj.weight", "language model"),
    ):
        facts = facts_of({key: (768, 768)}, tmp_path)
        assert facts.kind == "text_encoder" and label in facts.label


def test_one_tensor_of_any_name_is_no_embedding(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no family that is known here"):
        facts_of({"weight": (4, 32)}, tmp_path)


def test_unet_is_not_mistaken_for_its_controlnet(tmp_path: Path) -> None:
    assert facts_of(published_shapes("sd15"), tmp_path).kind == "denoiser"


ALIKE = {
    "flux": {"flux", "chroma"},
    "chroma": {"flux", "chroma"},
    "pixart_sigma": {"pixart_sigma", "sana"},  # Sana's small model is as wide
}
"""Families whose attention layers have the same names and shapes."""


@pytest.mark.parametrize("model", [name for name in PUBLISHED if name not in ("sdxl_refiner", "pixart_alpha")])
def test_lora_on_the_attention_of_a_published_denoiser_fits_that_family(model: str, tmp_path: Path) -> None:
    """As `peft` names it, on queries and keys of every block, and then on all layers."""
    denoiser = detect(published_shapes(model))[0]
    family = denoiser.family or {"flux_fill": "flux", "flux2_dev": "flux2_klein", "sdxl_inpaint": "sdxl"}[model]
    root = FAMILIES[family].denoiser
    layers = {
        name.removesuffix(".weight"): shape
        for name, shape in published_shapes(model).items()
        if name.endswith(".weight") and len(shape) == 2 and "embed" not in name
    }
    for pattern in (r"\.(to_[qk]|to_qkv_mlp_proj)$", r"."):
        shapes: Shapes = {}
        for module, (outside, inside) in layers.items():
            if re.search(pattern, module):
                shapes |= lora(f"{root}.{module}", inside, outside, rank=4, style="peft")
        facts = facts_of(shapes, tmp_path)
        assert family in facts.families
        assert set(facts.families) <= ALIKE.get(family, {family})
        assert facts.attention_width == detect(published_shapes(model))[0].attention_width
