"""Model after model in one process: what is loaded, what is free again."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from held_models import Load, held_by, pictures

from pipeline.memory.device.apply import apply_memory, release_model
from pipeline.memory.device.loaded_components import components
from pipeline.memory.device.pool import Pool
from pipeline.memory.planning.techniques import TECHNIQUES
from pipeline.request import MemorySettings


def resident_bytes() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("memory", "host_bytes"),
    [(MemorySettings(), 0), (MemorySettings(), None), (held_by("leaf_offload", "drop_encoders"), 0)],
    ids=["nothing is kept", "both are kept", "with hooks"],
)
def test_twenty_switches_leave_host_memory_flat(memory: MemorySettings, host_bytes: int | None, loaded: Load) -> None:
    pool, made = Pool(host_bytes=host_bytes), {}
    seen: list[int] = []
    for turn in range(22):
        family = ("sd15", "flux")[turn % 2]
        model = loaded(family, memory, pool)
        picture = pictures(model)
        np.testing.assert_array_equal(picture, made.setdefault(family, picture))
        release_model(model)
        del model
        seen.append(resident_bytes())
    assert max(seen[12:]) - max(seen[2:12]) < 12 * 2**20, [size // 2**20 for size in seen]
    if host_bytes is None:
        first, second = (len(components(loaded(family, memory, Pool()))) for family in ("sd15", "flux"))
        assert pool.loads == first + second, "each component once"
    else:
        assert pool.bytes_on_host == 0


@pytest.mark.campaign
def test_twenty_changes_of_techniques_leave_host_memory_flat(loaded: Load) -> None:
    model = loaded("flux")
    names = [
        name for name in TECHNIQUES if name not in ("half_precision", "tiny_vae", "disk_offload") and "int4" not in name
    ]
    seen = []
    for turn in range(3 * len(names)):
        apply_memory(model, held_by(names[turn % len(names)], budget_bytes=1))
        pictures(model)
        if turn % len(names) == len(names) - 1:
            seen.append(resident_bytes())
    assert seen[2] - seen[1] < 8 * 2**20, [size // 2**20 for size in seen]


@pytest.mark.campaign
def test_what_waits_on_disk_is_not_in_memory(tmp_path: Path) -> None:
    """A model of 300 MB, one layer of it at a time; measured in a process of its own, while it runs."""
    program = tmp_path / "measure.py"
    program.write_text(
        """
import psutil, torch, accelerate.hooks, diffusers.hooks
from pipeline.memory.device.disk_weights import bring_back, put_on_disk
from pipeline.memory.device.offload_hooks import add_group_offload, remove_group_offload
module = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(75))).requires_grad_(False)
add_group_offload(torch.nn.Sequential(torch.nn.Linear(4, 4)), torch.device("cpu"), by_leaf=True)  # imports the rest
all_there = psutil.Process().memory_info().rss
add_group_offload(module, torch.device("cpu"), by_leaf=True, disk=put_on_disk(module, "test"))
seen = []
handle = module[-1].register_forward_hook(lambda *_: seen.append(psutil.Process().memory_info().rss))
with torch.inference_mode():
    for _ in range(3):
        module(torch.zeros(1, 1024))
handle.remove()
remove_group_offload(module)
seen.append(psutil.Process().memory_info().rss)
add_group_offload(module, torch.device("cpu"), by_leaf=False, disk=put_on_disk(module, "test"))
seen.append(psutil.Process().memory_info().rss)
remove_group_offload(module)
bring_back(module)
assert psutil.Process().memory_info().rss > all_there - 20 * 2**20
print((all_there - max(seen)) // 2**20)
"""
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    run = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True, env=environment)
    assert int(run.stdout.splitlines()[-1]) > 250, "megabytes less than with all of it in memory"
