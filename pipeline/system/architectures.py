"""Checks whether the installed torch has code for the GPU: builds leave out old architectures and lack newer ones."""

from __future__ import annotations

import re

from pipeline.errors import RunStopped


def check_served(device: str) -> None:
    """Raise `RunStopped` for a card on which every kernel would fail, before anything is loaded."""
    import torch

    if torch.device(device).type != "cuda" or torch.version.cuda is None:  # AMD's have names of another kind
        return
    architectures = torch.cuda.get_arch_list()
    major, minor = torch.cuda.get_device_capability(device)
    if architectures and not any(serves(one, (major, minor)) for one in architectures):
        raise RunStopped(
            f"{torch.cuda.get_device_name(device)} has compute capability {major}.{minor}, for which the installed "
            f"torch {torch.__version__} has no code (it serves {', '.join(architectures)}); install a build that does, "
            "see https://pytorch.org/get-started/locally, or use engine.device=cpu"
        )


def serves(architecture: str, capability: tuple[int, int]) -> bool:
    """Whether code for an architecture runs on a card: `sm_86` on its generation from there on, `sm_90a` only on that
    one, `compute_80`, which the driver compiles, on everything later.
    """
    found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", architecture)
    if found is None:
        return False
    built = int(found[2]), int(found[3])
    if found[4] == "a":
        return capability == built
    return capability >= built and (found[1] == "compute" or capability[0] == built[0])
