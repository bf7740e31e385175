"""What it takes to make one image, or one bundle of alike images; knows no batch, no YAML and no manifest.

    from pipeline import Pipeline
    with Pipeline(model="demo") as pipeline:
        image = pipeline.generate("a red house in hills at sunset", seed=7)
        image.save("outputs", naming="descriptive")

May import torch, diffusers and transformers, inside functions only.
"""

from pipeline.errors import ConfigError, DarkroomError, JobFailure, ModelError, ReadError
from pipeline.metadata.reading import read_record
from pipeline.metadata.record import Record
from pipeline.picture import Picture, Pipeline
from pipeline.request import GeneratedImage, ImageRequest

__all__ = [
    "ConfigError",
    "DarkroomError",
    "GeneratedImage",
    "ImageRequest",
    "JobFailure",
    "ModelError",
    "Picture",
    "Pipeline",
    "ReadError",
    "Record",
    "read_record",
]
