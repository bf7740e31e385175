"""Makes one image, or one bundle of alike images; does not know batches, YAML or the manifest.

    from pipeline import Pipeline
    with Pipeline(model="demo") as pipeline:
        image = pipeline.generate("a red house in hills at sunset", seed=7)
        image.save("outputs", naming="descriptive")

May import torch, diffusers and transformers, inside functions only. The names below are loaded when they are first
used, since `darkroom search` and `run.py --help` need none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.adapters.specs import ControlNetSpec as ControlNet
    from pipeline.adapters.specs import EmbeddingSpec as Embedding
    from pipeline.adapters.specs import IpAdapterSpec as IpAdapter
    from pipeline.adapters.specs import LoraSpec as Lora
    from pipeline.api.auto import AutoPipeline
    from pipeline.api.explanation import Explanation
    from pipeline.api.picture import Picture
    from pipeline.api.pipeline import Pipeline
    from pipeline.errors import ConfigError, DarkroomError, JobFailure, ModelError, ReadError
    from pipeline.metadata.reading import read_record
    from pipeline.metadata.record import Record
    from pipeline.request import GeneratedImage, ImageRequest
    from pipeline.selection.choice import Choice

_HOMES = {
    "AutoPipeline": "api.auto",
    "Choice": "selection.choice",
    "ConfigError": "errors",
    "ControlNet": "adapters.specs",
    "DarkroomError": "errors",
    "Embedding": "adapters.specs",
    "Explanation": "api.explanation",
    "GeneratedImage": "request",
    "ImageRequest": "request",
    "IpAdapter": "adapters.specs",
    "JobFailure": "errors",
    "Lora": "adapters.specs",
    "ModelError": "errors",
    "Picture": "api.picture",
    "Pipeline": "api.pipeline",
    "ReadError": "errors",
    "Record": "metadata.record",
    "read_record": "metadata.reading",
}

_SPECS = {name: f"{name}Spec" for name in ("ControlNet", "Embedding", "IpAdapter", "Lora")}
"""Names that are shorter here than where they stand."""

__all__ = [
    "AutoPipeline",
    "Choice",
    "ConfigError",
    "ControlNet",
    "DarkroomError",
    "Embedding",
    "Explanation",
    "GeneratedImage",
    "ImageRequest",
    "IpAdapter",
    "JobFailure",
    "Lora",
    "ModelError",
    "Picture",
    "Pipeline",
    "ReadError",
    "Record",
    "read_record",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(import_module(f"pipeline.{_HOMES[name]}"), _SPECS.get(name, name))
