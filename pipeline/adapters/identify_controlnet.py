"""Finds, checks and hashes a ControlNet and its picture, before it is loaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pipeline.adapters.find_weights import check_family, deciding_files, family_label, find, public_name
from pipeline.adapters.reference_images import identify_image
from pipeline.adapters.specs import ControlNetSpec
from pipeline.errors import ModelError
from pipeline.request import ControlNetWeights
from pipeline.weights.families import FAMILIES
from pipeline.weights.folder_inspection import read_json
from pipeline.weights.hashes import identified
from pipeline.weights.inspection import ModelFiles

CONTROLNET_CLASSES = {
    "sd15": "ControlNetModel",
    "sdxl": "ControlNetModel",
    "sd3": "SD3ControlNetModel",
    "flux": "FluxControlNetModel",
    "qwen_image": "QwenImageControlNetModel",
    "sana": "SanaControlNetModel",
}
"""diffusers' class of ControlNet by family. Z-Image's takes layers out of the denoiser and is no model of its own."""

_CANNY_PACKAGE = "cv2"


def identify_controlnet(spec: ControlNetSpec, files: ModelFiles) -> ControlNetWeights:
    """Find, check and hash a ControlNet and its picture. Raises `ModelError`.

    A ControlNet is a diffusers folder. What family it is for is read off its class and the width that it attends to.
    """
    source, (family, label) = str(spec.source), family_label(files)
    if family is None or family.name not in CONTROLNET_CLASSES:
        able = ", ".join(FAMILIES[one].label for one in CONTROLNET_CLASSES)
        raise ModelError(f"controlnet {Path(source).name}: there is none for {label}; there are for: {able}")
    path, facts = find(source, "controlnet", "expected a diffusers folder with the config.json of a ControlNet")
    if not path.is_dir():
        raise ModelError(
            f"controlnet {path.name}: is a single file; expected a diffusers folder with a config.json and "
            "safetensors weights"
        )
    name = public_name(spec.name, source, path)
    wanted = CONTROLNET_CLASSES[family.name]
    if facts.class_name != wanted:
        raise ModelError(f"controlnet {name}: is a {facts.class_name}; {label} takes a {wanted}")
    check_family("controlnet", name, facts, files)
    config = read_json(path / "config.json", "no configuration", f"controlnet {name}")
    width, own = config.get("cross_attention_dim"), files.attention_width
    if wanted == "ControlNetModel" and width and own and width != own:
        raise ModelError(f"controlnet {name}: attends to width {width}, the model has {own}; take one made for {label}")
    if config.get("num_mode"):
        raise ModelError(f"controlnet {name}: is a union of several; expected a ControlNet for one kind of picture")
    if spec.preprocess == "canny" and importlib.util.find_spec(_CANNY_PACKAGE) is None:
        raise ModelError(f"controlnet {name}: canny needs the package opencv: pip install 'darkroom[controlnet]'")
    return ControlNetWeights(
        name=name,
        source=str(path),
        sha256=identified(path, deciding_files(path)[0]),
        image=identify_image(str(spec.image)),
        preprocess=spec.preprocess,
        strength=spec.strength,
        start=spec.start,
        end=spec.end,
    )
