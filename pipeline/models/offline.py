"""How torch, diffusers and transformers are imported: without the hub, and without chatter on standard error."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DIFFUSERS_DISABLE_REMOTE_CODE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    # Must be set before CUDA starts for cuBLAS to give the same bits twice.
    "CUBLAS_WORKSPACE_CONFIG": ":16:8",
}

_CHATTER = ("torchao", "torch.utils._pytree")
"""Loggers that warn of what nobody can act on: kernels for other cards, old calls between the two packages."""


def import_libraries() -> None:
    """Set the environment, then import; to be called before anything else imports these libraries."""
    os.environ.update(OFFLINE)
    import torch  # noqa: F401  (sets up logging of its own, so it comes before the levels)

    for name in _CHATTER:
        logging.getLogger(name).setLevel(logging.ERROR)
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def import_pipelines() -> None:
    """Also what the pipelines of all families have in common, which diffusers imports with the first of them."""
    import_libraries()
    import diffusers

    _ = diffusers.StableDiffusionPipeline


@contextmanager
def without_deprecations() -> Iterator[None]:
    """Silence about what diffusers' own classes call in diffusers, such as Chroma's position embedding."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
