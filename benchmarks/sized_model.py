"""The model of the size of SD 1.5 that several measurements share, written once per run of the benchmarks."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.measuring import Scale, answer, in_child

SIDE = 256


def sized_model(scale: Scale) -> tuple[Path, int]:
    """Its folder and the number of its parameters; when quick, its UNet and VAE have a third of them."""
    folder = scale.folder / "sized_model"
    note = folder / "parameters"
    if not note.exists():
        found = in_child("sized_model", folder, "third" if scale.quick else "whole")
        note.write_text(str(found["parameters"]), encoding="ascii")
    return folder, int(note.read_text(encoding="ascii"))


if __name__ == "__main__":
    from benchmarks.true_size import blueprint, write

    answer(parameters=write(blueprint("sd15", third=sys.argv[2] == "third"), Path(sys.argv[1])))
