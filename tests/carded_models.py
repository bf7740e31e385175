"""Tiny models as they lie in somebody's folder, each with a card that says what it is for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from build_tiny_models import write_lora

from pipeline.registry.database import Registry
from pipeline.registry.scanning import scan

PHOTO = """---
license: creativeml-openrail-m
tags: [photo, photorealistic, photography]
---
# Clear Lens

A realistic model for photos of people and places. Steps: 3, CFG scale: 4
"""
OIL = """---
license: openrail++
tags: [oil painting, painting]
---
# Canvas

Oil paintings with visible brush strokes. Steps: 2, CFG scale: 5
"""
CARDS = {"clear-lens": ("sd15", PHOTO), "canvas": ("sdxl", OIL)}
"""Names of the models, their families and their cards."""


def write_carded(
    folder: Path, tiny: Callable[[str], Path], cards: Mapping[str, tuple[str, str]] = CARDS, *, lora: bool = True
) -> Path:
    """These models below `folder`, and with `lora` a LoRA for the SDXL one, whose trigger word is `mossvale`."""
    for name, (family, card) in cards.items():
        shutil.copytree(tiny(family), folder / name)
        (folder / name / "README.md").write_text(card, encoding="utf-8")
    if lora:
        write_lora(tiny("sdxl") / "unet", folder / "mossvale.safetensors", 1, base="sdxl_base_v1-0")
        notes = '{"activation text": "mossvale", "description": "The mossvale style", "sd version": "SDXL"}'
        (folder / "mossvale.json").write_text(notes, encoding="utf-8")
    return folder


def scanned(folder: Path) -> Path:
    """The same folder, known to the registry."""
    with Registry() as registry:
        scan(registry, folder)
    return folder
