"""Single files in the layouts of the models' authors, written from tiny diffusers folders of the same weights.

The names are those of the published checkpoints, as diffusers' converters (`loaders/single_file_utils.py`) read them;
each writer goes the other way.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

Tensors = dict[str, Any]
DENOISER = "model.diffusion_model."


def write_checkpoint(folder: Path, file: Path, extra: Tensors | None = None, without: str = "") -> Path:
    """A full checkpoint of a folder of SD 1.5, SDXL, SD 3.5, Z-Image, FLUX.1 or Chroma; `without` drops a component."""
    pipeline = json.loads((folder / "model_index.json").read_text())["_class_name"]
    write = {
        "StableDiffusionPipeline": _sd15,
        "StableDiffusionXLPipeline": _sdxl,
        "StableDiffusion3Pipeline": _sd3,
        "ZImagePipeline": _z_image,
        "FluxPipeline": _flux,
        "ChromaPipeline": _flux,
    }[pipeline]
    parts = {name: part for name, part in write(folder).items() if name != without}
    return _save({**{name: t for part in parts.values() for name, t in part.items()}, **(extra or {})}, file)


def write_denoiser(folder: Path, file: Path) -> Path:
    """The denoiser alone, in the layout that diffusers itself writes."""
    return _save(_read(folder / _denoiser_name(folder)), file)


def write_gguf(folder: Path, file: Path, architecture: str) -> Path:
    """The denoiser alone as GGUF: matrices in blocks of 8 bits (Q8_0) where their rows allow, the rest as it is."""
    import gguf

    writer = gguf.GGUFWriter(file, architecture)
    for name, tensor in _read(folder / _denoiser_name(folder)).items():
        values = tensor.float().numpy()
        if name.endswith(".weight") and values.ndim == 2 and values.shape[1] % 32 == 0:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def write_vae(folder: Path, file: Path) -> Path:
    """The autoencoder alone, as its authors publish it: without a prefix."""
    return _save(_autoencoder(folder / "vae", ""), file)


def _sd15(folder: Path) -> dict[str, Tensors]:
    return {
        "unet": _unet(folder / "unet"),
        "vae": _autoencoder(folder / "vae", "first_stage_model."),
        "text_encoder": _clip(folder / "text_encoder", "cond_stage_model.transformer."),
    }


def _sdxl(folder: Path) -> dict[str, Tensors]:
    return {
        "unet": _unet(folder / "unet"),
        "vae": _autoencoder(folder / "vae", "first_stage_model."),
        "text_encoder": _clip(folder / "text_encoder", "conditioner.embedders.0.transformer."),
        "text_encoder_2": _open_clip(folder / "text_encoder_2", "conditioner.embedders.1.model."),
    }


def _sd3(folder: Path) -> dict[str, Tensors]:
    """The projection of the first CLIP is left out: it is the identity, in the published weights and for diffusers."""
    clip = _clip(folder / "text_encoder", "text_encoders.clip_l.transformer.")
    return {
        "transformer": _joint_blocks(_read(folder / "transformer")),
        "vae": _autoencoder(folder / "vae", "first_stage_model."),
        "text_encoder": {name: t for name, t in clip.items() if "text_projection" not in name},
        "text_encoder_2": _clip(folder / "text_encoder_2", "text_encoders.clip_g.transformer."),
        "text_encoder_3": _prefixed(_read(folder / "text_encoder_3"), "text_encoders.t5xxl.transformer."),
    }


def _flux(folder: Path) -> dict[str, Tensors]:
    """The denoiser by diffusers' own names: the converter of its authors' names has the width 3072 written in."""
    t5 = "text_encoder_2" if (folder / "text_encoder_2").is_dir() else "text_encoder"
    parts = {
        "transformer": _prefixed(_read(folder / "transformer"), DENOISER),
        "vae": _autoencoder(folder / "vae", "vae."),
        t5: _prefixed(_read(folder / t5), "text_encoders.t5xxl.transformer."),
    }
    if t5 == "text_encoder_2":
        parts["text_encoder"] = _clip(folder / "text_encoder", "text_encoders.clip_l.transformer.")
    return parts


def _z_image(folder: Path) -> dict[str, Tensors]:
    names = (
        (r"all_(final_layer|x_embedder)\.2-1\.", r"\1."),
        (r"\.attention\.to_out\.0\.", ".attention.out."),
        (r"\.attention\.norm_([qk])\.", r".attention.\1_norm."),
    )
    tensors = _joined(_read(folder / "transformer"), r"attention\.to_([qkv])\.", "attention.qkv.")
    encoder = _prefixed(_read(folder / "text_encoder"), "text_encoders.qwen3_4b.transformer.model.")
    return {
        "transformer": _renamed(tensors, names, DENOISER),
        "vae": _autoencoder(folder / "vae", "vae."),
        "text_encoder": encoder,
    }


def _unet(folder: Path) -> Tensors:
    """`down_blocks.I.resnets.J` is `input_blocks.N.0`: one number for all, each layer and each downsampler counts."""
    config = json.loads((folder / "config.json").read_text())
    layers = config["layers_per_block"] + 1
    attends = [kind.startswith("CrossAttn") for kind in config["up_block_types"]]

    def place(name: str) -> str:
        if match := re.match(
            r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name
        ):
            side, block, kind, layer, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
            if kind == "downsamplers":
                return f"input_blocks.{(block + 1) * layers}.0.{rest.replace('conv', 'op')}"
            if kind == "upsamplers":
                return f"output_blocks.{block * layers + layers - 1}.{1 + attends[block]}.{rest}"
            number = block * layers + layer + (side == "down")
            inner = rest if kind == "attentions" else _resnet(rest)
            return f"{'input' if side == 'down' else 'output'}_blocks.{number}.{int(kind == 'attentions')}.{inner}"
        if match := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name):
            if match[1] == "attentions":
                return f"middle_block.1.{match[3]}"
            return f"middle_block.{2 * int(match[2])}.{_resnet(match[3])}"
        for ours, theirs in (
            ("conv_in", "input_blocks.0.0"),
            ("time_embedding.linear_1", "time_embed.0"),
            ("time_embedding.linear_2", "time_embed.2"),
            ("add_embedding.linear_1", "label_emb.0.0"),
            ("add_embedding.linear_2", "label_emb.0.2"),
            ("conv_norm_out", "out.0"),
            ("conv_out", "out.2"),
        ):
            if name.startswith(f"{ours}."):
                return theirs + name.removeprefix(ours)
        raise AssertionError(name)

    return {DENOISER + place(name): tensor for name, tensor in _read(folder).items()}


def _resnet(name: str) -> str:
    table = (
        ("norm1", "in_layers.0"),
        ("conv1", "in_layers.2"),
        ("time_emb_proj", "emb_layers.1"),
        ("norm2", "out_layers.0"),
        ("conv2", "out_layers.3"),
        ("conv_shortcut", "skip_connection"),
    )
    return next(theirs + name.removeprefix(ours) for ours, theirs in table if name.startswith(ours))


def _autoencoder(folder: Path, prefix: str) -> Tensors:
    """The decoder's blocks are counted from the other end; attention is made of 1 x 1 convolutions."""
    count = len(json.loads((folder / "config.json").read_text())["block_out_channels"])
    tensors = {}
    for name, tensor in _read(folder).items():
        key = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
        key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", key)
        key = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{count - 1 - int(m[1])}.block.{m[2]}", key)
        key = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{count - 1 - int(m[1])}.upsample", key)
        key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
        key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        if "mid_block.attentions.0" in key:
            key = key.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
            key = key.replace("to_out.0", "proj_out").replace("to_", "")
            if tensor.ndim == 2:
                tensor = tensor[:, :, None, None]
        tensors[prefix + key] = tensor
    return tensors


def _clip(folder: Path, prefix: str) -> Tensors:
    """transformers 5 saves CLIP's text model without the name that its checkpoints have had since 2021."""
    tensors = {}
    for name, tensor in _read(folder).items():
        bare = name.removeprefix("text_model.")
        tensors[prefix + (bare if bare.startswith("text_projection") else f"text_model.{bare}")] = tensor
    return tensors


def _open_clip(folder: Path, prefix: str) -> Tensors:
    names = (
        (r"^(text_model\.)?embeddings\.token_embedding\.weight", "token_embedding.weight"),
        (r"^(text_model\.)?embeddings\.position_embedding\.weight", "positional_embedding"),
        (r"^(text_model\.)?final_layer_norm", "ln_final"),
        (r"^(text_model\.)?encoder\.layers\.", "transformer.resblocks."),
        (r"layer_norm([12])", r"ln_\1"),
        (r"self_attn", "attn"),
        (r"mlp\.fc1", "mlp.c_fc"),
        (r"mlp\.fc2", "mlp.c_proj"),
        (r"in_proj\.", "in_proj_"),
        (r"^text_projection\.weight", "text_projection"),
    )
    tensors = _read(folder)
    tensors["text_projection.weight"] = tensors["text_projection.weight"].T
    return _renamed(_joined(tensors, r"self_attn\.([qkv])_proj\.", "self_attn.in_proj."), names, prefix)


def _joint_blocks(tensors: Tensors) -> Tensors:
    """SD 3: queries, keys and values in one; scale and shift change places in the last modulations."""
    import torch

    last = max(int(name.split(".")[1]) for name in tensors if name.startswith("transformer_blocks."))
    for name in list(tensors):
        if name.startswith(("norm_out.linear", f"transformer_blocks.{last}.norm1_context.linear")):
            scale, shift = tensors[name].chunk(2)
            tensors[name] = torch.cat([shift, scale])
    tensors = _joined(tensors, r"attn(2?)\.to_([qkv])\.", r"x_block.attn\1.qkv.")
    tensors = _joined(tensors, r"attn\.add_([qkv])_proj\.", "context_block.attn.qkv.")
    names = (
        (r"^transformer_blocks\.", "joint_blocks."),
        (r"attn(2?)\.norm_([qk])", r"x_block.attn\1.ln_\2"),
        (r"attn\.norm_added_([qk])", r"context_block.attn.ln_\1"),
        (r"attn(2?)\.to_out\.0", r"x_block.attn\1.proj"),
        (r"attn\.to_add_out", "context_block.attn.proj"),
        (r"norm1\.linear", "x_block.adaLN_modulation.1"),
        (r"norm1_context\.linear", "context_block.adaLN_modulation.1"),
        (r"ff\.net\.0\.proj", "x_block.mlp.fc1"),
        (r"ff\.net\.2", "x_block.mlp.fc2"),
        (r"ff_context\.net\.0\.proj", "context_block.mlp.fc1"),
        (r"ff_context\.net\.2", "context_block.mlp.fc2"),
        (r"^pos_embed\.proj", "x_embedder.proj"),
        (r"^pos_embed\.pos_embed", "pos_embed"),
        (r"^time_text_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0"),
        (r"^time_text_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2"),
        (r"^time_text_embed\.text_embedder\.linear_1", "y_embedder.mlp.0"),
        (r"^time_text_embed\.text_embedder\.linear_2", "y_embedder.mlp.2"),
        (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
        (r"^proj_out", "final_layer.linear"),
    )
    return _renamed(tensors, names, DENOISER)


def _joined(tensors: Tensors, pattern: str, name: str) -> Tensors:
    """Queries, keys and values, whose names the pattern finds (its last group is q, k or v), one below the other."""
    import torch

    joined: Tensors = {}
    parts: dict[str, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        if match := re.search(pattern, key):
            place = key[: match.start()] + match.expand(name) + key[match.end() :]
            parts.setdefault(place, {})[match[match.lastindex or 1]] = tensor
        else:
            joined[key] = tensor
    return joined | {place: torch.cat([part[letter] for letter in "qkv"]) for place, part in parts.items()}


def _renamed(tensors: Tensors, names: tuple[tuple[str, str], ...], prefix: str) -> Tensors:
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        renamed[prefix + name] = tensor
    return renamed


def _prefixed(tensors: Tensors, prefix: str) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _denoiser_name(folder: Path) -> str:
    return "unet" if (folder / "unet").is_dir() else "transformer"


def _read(folder: Path) -> Tensors:
    from safetensors.torch import load_file

    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


def _save(tensors: Tensors, file: Path) -> Path:
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata={"format": "pt"})
    return file
