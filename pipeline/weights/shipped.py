"""Included model data: configurations that single files of SD 1.5 and SDXL lack, and CLIP's vocabulary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).resolve().parent / "configs"

SHIPPED = {"sd15": CONFIGS / "sd15", "sdxl": CONFIGS / "sdxl"}
"""Diffusers folders without weights, by family; their tokenizers share the one vocabulary."""

CLIP_VOCABULARY = CONFIGS / "clip_vocabulary"
"""vocab.json and merges.txt of CLIP, 49,408 entries, with their licence."""

_TOKENIZER_SETTINGS = ("bos_token", "eos_token", "unk_token", "pad_token", "model_max_length")


def load_tokenizer(tokenizer_class: Any, folder: Path) -> Any:
    """A CLIP tokenizer from its folder, with the included vocabulary if the folder has none."""
    if any((folder / name).exists() for name in ("vocab.json", "tokenizer.json")):
        return tokenizer_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    written = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings = {name: written[name] for name in _TOKENIZER_SETTINGS if name in written}
    return tokenizer_class.from_pretrained(CLIP_VOCABULARY, local_files_only=True, trust_remote_code=False, **settings)
