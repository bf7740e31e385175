"""Imports torch, diffusers and transformers without access to a hub and without their messages on standard error."""

from __future__ import annotations

import functools
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

from pipeline.system.device import cuda_variables

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DIFFUSERS_DISABLE_REMOTE_CODE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
}

CUBLAS_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""With which cuBLAS gives the same bits twice, in eight pieces of 4 MiB, the larger of the two sizes that do (cuBLAS'
documentation, "Results reproducibility"): with the smaller one, 16 KiB, matrix products are slower. Read when CUDA
starts; what a user has set stays."""

_CHATTER = ("torchao", "torch.utils._pytree")
"""Loggers that warn of what nobody can act on: kernels for other cards, old calls between the two packages."""


def import_libraries() -> None:
    """Set the environment, then import; call before anything else imports these libraries."""
    os.environ.update(OFFLINE)
    if "torch" not in sys.modules or not sys.modules["torch"].cuda.is_initialized():
        os.environ.update(cuda_variables())
    os.environ.setdefault(*CUBLAS_WORKSPACE)
    import torch  # noqa: F401  (sets up logging of its own, so it comes before the levels)

    for name in _CHATTER:
        logging.getLogger(name).setLevel(logging.ERROR)
    with _read_quickly():
        import diffusers
        import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def import_pipelines() -> None:
    """Also import the code that all pipelines share, which diffusers imports with the first of them."""
    import_libraries()
    import diffusers

    _ = diffusers.StableDiffusionPipeline


@contextmanager
def _read_quickly() -> Iterator[None]:
    """If transformers is imported within this block, it goes through its own source once, and through less of it.

    It looks into some 1,700 files for what they define, once for `transformers` and once for `transformers.models`,
    since it remembers the last 128 of 550 folders, and goes through every line of each. Both together take 0.4 s of
    2.5 s that all imports take, with this 0.1 s.
    """
    if _READER in sys.modules:
        yield
        return
    finder = _QuickReaderFinder()
    # The list is replaced, not changed: another thread may be going through it.
    sys.meta_path = [finder, *sys.meta_path]
    try:
        yield
    finally:
        sys.meta_path = [one for one in sys.meta_path if one is not finder]


_READER = "transformers.utils.import_utils"


class _QuickReaderFinder(MetaPathFinder):
    """Finds the module that reads them as `PathFinder` does, with a loader that changes how it reads."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _READER:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _QuickReader(name, spec.loader.path)
        return spec


class _QuickReader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        values = vars(module)
        of_folder: Any = values.get("create_import_structure_from_path")
        of_text: Any = values.get("fetch__all__")
        if not hasattr(of_folder, "cache_info") or not callable(of_text):
            return

        @functools.wraps(of_text)
        def of_end(file_content: str) -> Any:
            # The last line that begins so is the one that counts.
            return of_text(file_content[file_content.rfind("\n__all__") + 1 :])

        values["create_import_structure_from_path"] = functools.cache(of_folder.__wrapped__)
        values["fetch__all__"] = of_end


@contextmanager
def without_deprecations() -> Iterator[None]:
    """Within this block, deprecation warnings that diffusers' own classes cause in diffusers are silenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
