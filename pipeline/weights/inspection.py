"""The entry to inspection: identifies a model or a weights file from small files and headers."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pipeline.weights.file_inspection import inspect_file as inspect_file
from pipeline.weights.folder_inspection import NOT_LOADED as NOT_LOADED
from pipeline.weights.folder_inspection import inspect_folder
from pipeline.weights.model_files import Component as Component
from pipeline.weights.model_files import FileFacts as FileFacts
from pipeline.weights.model_files import ModelFiles as ModelFiles
from pipeline.weights.single_file_inspection import inspect_single_file
from pipeline.weights.weights_files import component_weights as component_weights


def inspect_model(path: Path, config: Path | None = None, supplied: Collection[str] = ()) -> ModelFiles:
    """Inspect a model that makes pictures: a diffusers folder, a single-file checkpoint, a denoiser, a GGUF file.

    `config` is a diffusers folder that has what a single file leaves out; components in `supplied` come from elsewhere
    and may be missing there too. No weights are read. Raises `ModelError` naming the file at fault and the way out.
    """
    return inspect_folder(path) if path.is_dir() else inspect_single_file(path, config, supplied)
