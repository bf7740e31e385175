"""What is put on or beside a model for some pictures and taken off for others.

`identify_*` and `check_adapters` read headers only and are for planning; the rest works on a loaded model.
"""

from pipeline.adapters.apply import apply, text_encoder_key
from pipeline.adapters.arguments import arguments
from pipeline.adapters.combinations import check_adapters
from pipeline.adapters.controlnet import identify_controlnet
from pipeline.adapters.init_image import identify_init
from pipeline.adapters.ip_adapter import encoder_hash, identify_ip_adapter
from pipeline.adapters.lora import identify_lora
from pipeline.adapters.reference_images import identify_image
from pipeline.adapters.textual_inversion import identify_embedding
from pipeline.adapters.views import kept_precision, view

__all__ = [
    "apply",
    "arguments",
    "check_adapters",
    "encoder_hash",
    "identify_controlnet",
    "identify_embedding",
    "identify_image",
    "identify_init",
    "identify_ip_adapter",
    "identify_lora",
    "kept_precision",
    "text_encoder_key",
    "view",
]
