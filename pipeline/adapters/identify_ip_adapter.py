"""Finds, checks and hashes an IP-Adapter, its image encoder and its picture, before it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.adapters.find_weights import check_family, deciding_files, family_label, find, public_name
from pipeline.adapters.reference_images import identify_image
from pipeline.adapters.specs import IpAdapterSpec
from pipeline.errors import ModelError
from pipeline.registry.resolve import resolve
from pipeline.request import IpAdapterWeights
from pipeline.weights.families import FAMILIES
from pipeline.weights.folder_inspection import read_json
from pipeline.weights.hashes import identified
from pipeline.weights.headers.read import read_weights
from pipeline.weights.inspection import ModelFiles

_FOLDER = "image_encoder"
"""Name of the encoder's folder beside the file, as h94/IP-Adapter has it."""

_READS_ALL = ("image_proj.proj.weight", "ip_adapter_proj_model.proj.weight")
"""Tensors of adapters that read one embedding of the whole picture; the others read one per patch."""

_FACE_ID = ("image_proj.norm.weight", "image_proj.perceiver_resampler.proj_in.weight")
"""Tensors of adapters that read a face recogniser's numbers and no picture."""


def identify_ip_adapter(spec: IpAdapterSpec, files: ModelFiles) -> IpAdapterWeights:
    """Find, check and hash an IP-Adapter, its image encoder and its picture. Raises `ModelError`."""
    source, (family, label) = str(spec.source), family_label(files)
    if family is None or not family.ip_adapter:
        able = ", ".join(one.label for one in FAMILIES.values() if one.ip_adapter)
        raise ModelError(f"ip-adapter {Path(source).name}: diffusers has none for {label}; it has for: {able}")
    path, facts = find(source, "ip_adapter", "give an IP-Adapter as .safetensors")
    name = public_name(spec.name, source, path)
    tensors = read_weights(path).tensors
    face = "image_proj.proj.0.weight" in tensors and any(tensor in tensors for tensor in _FACE_ID)
    if face and "image_proj.proj.3.weight" not in tensors:
        raise ModelError(f"ip-adapter {name}: is a FaceID, which needs a face recogniser; take one that reads pictures")
    check_family("ip-adapter", name, facts, files, by_width=files.denoiser == "unet")
    folder = _encoder(spec, path, name)
    config = _checked_encoder(folder, name, family.name)
    read = config.get("projection_dim" if any(tensor in tensors for tensor in _READS_ALL) else "hidden_size")
    if facts.image_width and read and facts.image_width != read:
        raise ModelError(
            f"ip-adapter {name}: reads {facts.image_width} numbers per picture or patch, the encoder "
            f"{folder.name} gives {read}; name the one that it was trained with (encoder: FOLDER)"
        )
    return IpAdapterWeights(
        name=name,
        source=str(path),
        sha256=identified(path, facts.files),
        image=identify_image(str(spec.image)),
        scale=spec.scale,
        encoder_source=str(folder),
        encoder_sha256=encoder_hash(folder),
    )


def _encoder(spec: IpAdapterSpec, path: Path, name: str) -> Path:
    if spec.encoder is not None:
        return resolve(str(spec.encoder), "image encoder")
    beside = path.parent / _FOLDER
    if not beside.is_dir():
        raise ModelError(
            f"ip-adapter {name}: needs the image encoder that it was trained with; there is no {_FOLDER}/ beside it, "
            "so name one (encoder: FOLDER)"
        )
    return beside


def encoder_hash(folder: Path) -> str:
    """The hash by which records identify an image encoder. Raises `ModelError`."""
    return identified(folder, deciding_files(folder)[0])


def _checked_encoder(folder: Path, name: str, family: str) -> dict[str, Any]:
    """The encoder's configuration."""
    wanted = "SiglipVisionModel" if family == "sd3" else "CLIPVisionModelWithProjection"
    expected = f"expected the folder of a {wanted}"
    config = read_json(folder / "config.json", expected, f"ip-adapter {name}: image encoder {folder.name}")
    found = (config.get("architectures") or ["nothing"])[0]
    if found not in (wanted, wanted.removesuffix("WithProjection")):
        raise ModelError(f"ip-adapter {name}: image encoder {folder.name} is a {found}; expected a {wanted}")
    vision: dict[str, Any] = config.get("vision_config") or config
    try:
        deciding_files(folder)
    except ModelError as error:
        raise ModelError(f"ip-adapter {name}: image encoder {error}") from None
    return vision
