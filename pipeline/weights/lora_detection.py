"""Detects for which model a LoRA was made, from the names and shapes of its tensors.

Names come in the styles of kohya (`lora_unet_...lora_down`), PEFT and diffusers (`transformer....lora_A`), XLabs
(`...processor.qkv_lora1.down`), ComfyUI (`diffusion_model....lora_A`) and LyCORIS (`...hada_w1_a`, `...lokr_w1`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod

from pipeline.weights.headers.base import TensorInfo

_PAIR = re.compile(r"^(.+?)[._](?:lora\d?|lora_linear_layer)[._](down|up|A|B)(?:\.\w+)?\.weight$")
_LYCORIS = re.compile(r"^(.+)\.(hada_w[12]_[ab]|lokr_w[12](?:_[ab])?|lokr_t2|hada_t[12]|oft_blocks|oft_diag)$")
_PREFIX = re.compile(
    r"^(?:base_model\.model\.)?"
    r"(?:lora_unet_|lora_transformer_|lycoris_|unet\.|transformer\.|model\.diffusion_model\.|diffusion_model\.)?"
)
_TEXT_ENCODER = re.compile(r"^(?:base_model\.model\.)?(?:lora_te\d?_|text_encoder|conditioner\.|te\d?_)")
_SECOND_ENCODER = re.compile(r"^(?:lora_te2_|text_encoder_2\.|text_encoders\.clip_g\.)")
_FUSED = (("qkv", 3), ("linear1", 4))

_MMDIT = ("sd3", "flux", "chroma", "qwen_image", "flux2_klein")
_SPOKEN = (
    ("chroma", "chroma"), ("klein", "flux2_klein"), ("flux-2", "flux2_klein"), ("flux2", "flux2_klein"),
    ("flux", "flux"), ("qwen", "qwen_image"), ("z-image", "z_image"), ("zimage", "z_image"), ("z_image", "z_image"),
    ("lumina", "lumina2"), ("sd3", "sd3"), ("stable-diffusion-3", "sd3"), ("stable-diffusion-v3", "sd3"),
    ("sdxl", "sdxl"), ("xl-v1", "sdxl"), ("sd_v1", "sd15"), ("diffusion-v1", "sd15"), ("sana", "sana"),
    ("pixart", "pixart_sigma"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lora:
    """`families` are those that the names and shapes fit, none for a family that is not known here.

    `network` is LoRA, LoHa, LoKr or OFT. `attention_width` is that of the model it was made for. `for_denoiser` and
    `for_encoders` count the numbers that it brings along once it is loaded.
    """

    families: tuple[str, ...]
    network: str
    ranks: tuple[int, ...]
    attention_width: int | None
    trains_text_encoder: bool
    for_denoiser: int = 0
    for_encoders: int = 0


@dataclass(slots=True)
class _Layer:
    """One adapted layer: the numbers that go in and out of it, as far as its factors tell."""

    parts: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def sides(self) -> tuple[int | None, int | None]:
        p = self.parts
        if "down" in p or "up" in p:
            return _side(p.get("down"), 1), _side(p.get("up"), 0)
        if "hada_w1_a" in p:
            return _side(p.get("hada_w1_b"), 1), _side(p.get("hada_w1_a"), 0)
        if "lokr_w1" in p or "lokr_w1_a" in p:
            w1 = p.get("lokr_w1") or (_side(p.get("lokr_w1_a"), 0), _side(p.get("lokr_w1_b"), 1))
            w2 = p.get("lokr_w2") or (_side(p.get("lokr_w2_a"), 0), _side(p.get("lokr_w2_b"), 1))
            return _product(w1, w2, 1), _product(w1, w2, 0)
        return None, None

    @property
    def rank(self) -> int | None:
        p = self.parts
        for name, side in (("down", 0), ("up", 1), ("hada_w1_b", 0), ("lokr_w2_b", 0), ("lokr_w1_b", 0)):
            if name in p:
                return _side(p[name], side)
        return None

    def loaded(self, name: str) -> int:
        """Numbers in memory: diffusers takes layers that the authors fused apart, and each part gets the first matrix.

        The parts of `qkv` are three, those of `linear1` four.
        """
        split = next((parts for ending, parts in _FUSED if name.endswith(ending)), 1)
        return sum(prod(shape) * (split if part == "down" else 1) for part, shape in self.parts.items())


def detect_lora(tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> Lora | None:
    """The LoRA with these tensors; None if they are none."""
    layers: dict[str, _Layer] = {}
    networks: set[str] = set()
    for name, tensor in tensors.items():
        if pair := _PAIR.match(name):
            part = {"A": "down", "B": "up"}.get(pair[2], pair[2])
            module, network = pair[1], "LoRA"
        elif lycoris := _LYCORIS.match(name):
            module, part = lycoris[1], lycoris[2]
            network = {"h": "LoHa", "l": "LoKr", "o": "OFT"}[part[0]]
        else:
            continue
        networks.add(network)
        layers.setdefault(module, _Layer()).parts[part] = tensor.shape
    if not layers:
        return None
    encoders = {name for name in layers if _TEXT_ENCODER.match(name)}
    denoiser = {
        _PREFIX.sub("", name, count=1).replace(".", "_"): layer
        for name, layer in layers.items()
        if name not in encoders
    }
    second = any(_SECOND_ENCODER.match(name) for name in encoders)
    families, width = _families(denoiser, second)
    if len(families) > 1 and (spoken := _spoken(metadata)) in families:
        families = (spoken,)
    ranks = sorted({layer.rank for layer in layers.values() if layer.rank is not None})
    loaded = {name: layer.loaded(name) for name, layer in layers.items()}
    return Lora(
        families,
        " and ".join(sorted(networks)),
        tuple(ranks),
        width,
        bool(encoders),
        sum(count for name, count in loaded.items() if name not in encoders),
        sum(count for name, count in loaded.items() if name in encoders),
    )


def _families(layers: Mapping[str, _Layer], second_encoder: bool) -> tuple[tuple[str, ...], int | None]:
    names = _Names(layers)
    if names.have(r"^(down_blocks|up_blocks|mid_block|input_blocks|output_blocks|middle_block)_"):
        return _unet(names, second_encoder)
    width = names.width(r"attn\d?_(to_)?qkv?$|_to_q$|attention_to_q$|attention_qkv$|self_attn_q$|_qkv$")
    if names.have(r"^joint_blocks_"):
        return ("sd3",), width
    if names.have(r"^(double_blocks|single_blocks|double_stream_|single_stream_|distilled_guidance)"):
        return _flux_original(names), width or names.width(r"linear1$")
    if names.have(r"^single_transformer_blocks_"):
        return _flux_diffusers(names), width
    if names.have(r"^transformer_blocks_"):
        return _transformer_blocks(names, width), width
    if names.have(r"^(layers|noise_refiner|context_refiner)_\d"):
        return _layers(names, width), width
    if names.have(r"^blocks_\d+_cross_attn_q_linear"):
        return ("sana", "pixart_sigma"), width
    if not layers and second_encoder:
        return ("sdxl",), None
    return (), width


class _Names:
    """Questions about the adapted layers, by their names with underscores only."""

    def __init__(self, layers: Mapping[str, _Layer]) -> None:
        self._layers = layers

    def have(self, pattern: str) -> bool:
        return any(re.search(pattern, name) for name in self._layers)

    def width(self, pattern: str) -> int | None:
        """What goes into the first such layer."""
        found = (layer.sides[0] for name, layer in self._layers.items() if re.search(pattern, name))
        return next((width for width in found if width), None)

    def last(self, blocks: str) -> int:
        """The highest number of such a block, -1 where there is none."""
        return max((int(m[1]) for name in self._layers if (m := re.match(rf"{blocks}_(\d+)_", name))), default=-1)

    def ratio(self, pattern: str) -> float | None:
        """How many times more goes out of such a layer than comes in."""
        for name, layer in self._layers.items():
            inside, outside = layer.sides
            if inside and outside and re.search(pattern, name):
                return outside / inside
        return None


def _unet(names: _Names, second_encoder: bool) -> tuple[tuple[str, ...], int | None]:
    """SD 1.x and 2.x against XL: by what the cross attention reads, else by the places that only one of them has."""
    width = names.width(r"attn2_to_[kv]$")
    if width in (768, 1024):
        return ("sd15",), width
    if width == 2048:
        return ("sdxl",), width
    # XL alone stacks transformer blocks and has a second encoder; SD 1.x alone has attention at full resolution.
    if second_encoder or names.have(r"_transformer_blocks_[1-9]"):
        return ("sdxl",), width
    if names.have(r"^(down_blocks_0_attentions|up_blocks_3_|input_blocks_[12]_1_|output_blocks_(9|10|11)_)"):
        return ("sd15",), width
    return ("sd15", "sdxl"), width


def _flux_original(names: _Names) -> tuple[str, ...]:
    """FLUX.1, FLUX.2 and Chroma by the widths of their feed-forward layers (4 and 3, gated, times the width)."""
    if names.have(r"^distilled_guidance"):
        return ("chroma",)
    if names.have(r"^(double|single)_stream_modulation"):
        return ("flux2_klein",)
    if names.have(r"_modulation_lin$|_(img|txt)_mod_lin$|_processor_"):  # XLabs' processors are of FLUX.1 alone
        return ("flux",)
    ratios = [names.ratio(p) for p in (r"_linear1$", r"_linear2$", r"_mlp_0$", r"_mlp_2$")]
    first = tuple(zip(ratios, (7, 1 / 5, 4, 1 / 4), strict=True))
    second = tuple(zip(ratios, (9, 1 / 4, 6, 1 / 3), strict=True))
    if names.last("double_blocks") > 8 or names.last("single_blocks") > 24 or _agree(first):
        return ("flux", "chroma")
    return ("flux2_klein",) if _agree(second) else ("flux", "chroma", "flux2_klein")


def _flux_diffusers(names: _Names) -> tuple[str, ...]:
    if names.have(r"_to_qkv_mlp_proj$|_ff_linear_|_ff_context_linear_"):
        return ("flux2_klein",)
    if names.have(r"_norm_linear$|_norm1_linear$|_norm1_context_linear$"):
        return ("flux",)
    return ("flux", "chroma")


def _transformer_blocks(names: _Names, width: int | None) -> tuple[str, ...]:
    if names.have(r"_(img|txt)_(mlp|mod)_"):
        return ("qwen_image",)
    if names.have(r"_attn_(to|add)_|_norm1_context_|_ff_context_"):
        fitting = set(_MMDIT)
        if names.have(r"_ff_net_|_ff_context_net_|_norm1_"):
            fitting -= {"qwen_image", "flux2_klein"}
        if names.have(r"_attn2_") or width in (1536, 2432):
            fitting = {"sd3"}
        last = names.last("transformer_blocks")
        blocks = {"sd3": 38, "flux": 19, "chroma": 19, "qwen_image": 60, "flux2_klein": 8}
        fitting = {family for family in fitting if last < blocks[family]}
        if width in (3072, 4096):
            fitting &= {"flux2_klein"} if width == 4096 else {"flux", "chroma", "qwen_image", "flux2_klein"}
        return tuple(family for family in _MMDIT if family in fitting)
    if names.have(r"_ff_conv_") or width == 2240:
        return ("sana",)
    return ("pixart_sigma",) if names.have(r"_ff_net_") else ("pixart_sigma", "sana")


def _layers(names: _Names, width: int | None) -> tuple[str, ...]:
    if names.have(r"_attention_to_|_adaLN_modulation_0$") or width == 3840:
        return ("z_image",)
    if names.have(r"_attn_to_|_feed_forward_linear_|_adaLN_modulation_1$") or width == 2304:
        return ("lumina2",)
    return ("z_image", "lumina2")


def _spoken(metadata: Mapping[str, str]) -> str | None:
    """The family that the trainer wrote down, by kohya's and modelspec's remarks."""
    said = " ".join(
        metadata.get(key, "") for key in ("ss_base_model_version", "modelspec.architecture", "modelspec.implementation")
    ).lower()
    return next((family for word, family in _SPOKEN if word in said), None)


def _agree(pairs: Iterable[tuple[float | None, float]]) -> bool:
    known = [(ratio, wanted) for ratio, wanted in pairs if ratio is not None]
    return bool(known) and all(abs(ratio - wanted) < 0.01 for ratio, wanted in known)


def _side(shape: tuple[int, ...] | None, index: int) -> int | None:
    return shape[index] if shape is not None and len(shape) > index else None


def _product(first: tuple[int | None, ...], second: tuple[int | None, ...], index: int) -> int | None:
    if len(first) <= index or len(second) <= index:
        return None
    one, other = first[index], second[index]
    return one * other if one and other else None
