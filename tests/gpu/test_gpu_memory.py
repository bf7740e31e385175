"""Memory on a real device: budgets that the allocator enforces, streams, and the ladder under a limit.

A limit is set with `set_per_process_memory_fraction`, which counts what the allocator reserves, so each test that sets
one runs in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.memory.device.block_streaming import BlockStreaming, blocks_of
from pipeline.memory.device.device_copies import to_device, to_host, weights_stayed
from pipeline.memory.device.disk_weights import bring_back, put_on_disk
from pipeline.memory.device.offload_hooks import add_group_offload, remove_group_offload
from pipeline.memory.device.page_locked import to_pageable
from pipeline.memory.device.quantization import quantize, true_bytes
from pipeline.memory.device.stages import measured

REPO = Path(__file__).resolve().parents[2]
CUDA = torch.device("cuda")
MIB = 2**20


def in_its_own_process(program: str, *arguments: str) -> Any:
    """The last line of what a program prints, as JSON."""
    prelude = (
        "import sys; sys.path[:0] = [sys.argv[1], sys.argv[1] + '/tests', sys.argv[1] + '/tests/pipeline/memory']\n"
        "import json, torch\nCUDA = torch.device('cuda')\nMIB = 2**20\n"
        "def limit(size):\n"
        "    total = torch.cuda.get_device_properties(0).total_memory\n"
        "    torch.cuda.set_per_process_memory_fraction(size / total)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", prelude + program, str(REPO), *arguments], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


class Stack(torch.nn.Module):
    """Sixteen blocks of 32 MiB in bfloat16, so that copying one takes about as long as running it."""

    def __init__(self, blocks: int = 16) -> None:
        super().__init__()
        self.first = torch.nn.Linear(4096, 4096, bias=False)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(4096, 4096, bias=False) for _ in range(blocks))
        self.register_buffer("shift", torch.randn(4096))
        self.to(torch.bfloat16).requires_grad_(False)

    def forward(self, x: torch.Tensor, order: list[int] | None = None) -> torch.Tensor:
        x = self.first(x) + self.shift
        for index in range(len(self.layers)) if order is None else order:
            x = torch.tanh(self.layers[index](x))
        return x


@pytest.fixture(scope="module")
def stack() -> Stack:
    torch.manual_seed(0)
    return Stack()


@pytest.fixture(scope="module")
def exact(stack: Stack) -> Callable[..., torch.Tensor]:
    """What the stack computes when all of it is on the device."""

    def run(x: torch.Tensor, order: list[int] | None = None) -> torch.Tensor:
        with torch.inference_mode():
            stack.to(CUDA)
            result = stack(x, order)
            stack.to("cpu")
        return result

    return run


@pytest.mark.parametrize("resident", [0, 5, 16])
def test_streamed_blocks_compute_the_same_bits(resident: int, stack: Stack, exact: Callable[..., torch.Tensor]) -> None:
    x = torch.randn(2048, 4096, device=CUDA, dtype=torch.bfloat16)
    orders: list[list[int] | None] = [None, None, [3, 1, 1, 15, 0], None, []]
    expected = [exact(x, order) for order in orders]
    streaming = BlockStreaming(stack, CUDA, resident * true_bytes(stack.layers[0]))
    try:
        with torch.inference_mode():
            for order, wanted in zip(orders, expected, strict=True):
                # Many runs without waiting in between: a copy that overtakes a kernel would show.
                results = [stack(x, order) for _ in range(10)]
                assert all(torch.equal(result, wanted) for result in results)
    finally:
        streaming.remove()
    assert {tensor.device.type for tensor in [*stack.parameters(), *stack.buffers()]} == {"cpu"}
    assert torch.equal(exact(x), expected[0])


def test_streaming_takes_what_it_was_given_and_two_blocks(stack: Stack) -> None:
    block = true_bytes(stack.layers[0])
    x = torch.randn(64, 4096, device=CUDA, dtype=torch.bfloat16)
    x @ torch.ones(4096, 1, device=CUDA, dtype=torch.bfloat16)  # the first product takes cuBLAS' workspace, 32 MiB
    for resident in (0, 4):
        streaming = BlockStreaming(stack, CUDA, resident * block)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        with torch.inference_mode(), measured(CUDA) as peaks:
            for _ in range(5):
                stack(x)  # the CPU runs far ahead of the device here
            torch.cuda.synchronize()
        streaming.remove()
        fixed = true_bytes(stack.first)
        assert peaks["allocated"] - before <= fixed + (resident + 2) * block + 16 * MIB
        assert peaks["allocated"] - before >= fixed + (resident + 1) * block


def test_waiting_blocks_are_page_locked(stack: Stack) -> None:
    streaming = BlockStreaming(stack, CUDA, 0)
    streaming.enter()
    streaming.leave()
    assert all(block.weight.is_pinned() for block in blocks_of(stack))
    streaming.remove()
    del streaming
    values = [block.weight.clone() for block in blocks_of(stack)]
    to_pageable(stack)
    assert not any(tensor.is_pinned() for tensor in [*stack.parameters(), *stack.buffers()])
    assert all(torch.equal(block.weight, value) for block, value in zip(blocks_of(stack), values, strict=True))


PAGE_LOCKED = """
import gc
from held_models import held_by, images
from pipeline.memory.device.loaded_components import components
from pipeline.memory.device.apply import apply_memory, release_model
from pipeline.memory.device.pool import Pool
from pipeline.loading.load import load
from pipeline.registry.model_settings import identify
def page_locked():
    stats = torch.cuda.host_memory_stats() if hasattr(torch.cuda, 'host_memory_stats') else {}
    return stats.get('allocated_bytes.current', 0)
pool = Pool()
model = load(identify(sys.argv[2])[0], held_by(), 'cuda', pool=pool)
images(model)
before, found = page_locked(), []
ways = [held_by('resident_blocks', budget_bytes=1), held_by('leaf_offload'), held_by('block_offload')]
for memory in ways:
    apply_memory(model, memory)
    images(model)
    denoiser = components(model)[model.files.denoiser]
    streamed = page_locked() > before
    apply_memory(model, held_by('staged'))
    pinned = sum(t.is_pinned() for module in components(model).values() for t in module.parameters())
    found.append([streamed, pinned, page_locked() - before])
apply_memory(model, ways[0])
images(model)
del denoiser
release_model(model)
pinned = sum(t.is_pinned() for entry in pool._entries.values() for t in entry.module.parameters())
found.append([len(pool._entries) > 0, pinned, page_locked() - before])
model = load(identify(sys.argv[2])[0], ways[0], 'cuda', pool=pool)
images(model)
release_model(model, keep=False)
found.append([len(pool._entries) == 0, 0, page_locked() - before])
print(json.dumps(found))
"""


def test_page_locked_memory_goes_with_what_streamed_from_it(tiny: Callable[[str], Path]) -> None:
    """Whether a model is then held otherwise, waits in the pool, or is forgotten."""
    found = in_its_own_process(PAGE_LOCKED, str(tiny("flux")))
    if hasattr(torch.cuda, "host_memory_stats"):
        assert [happened for happened, _, _ in found] == [True] * 5
    assert [(pinned, more) for _, pinned, more in found] == [(0, 0)] * 5


def test_copying_overlaps_with_computing(stack: Stack) -> None:
    """A block runs longer than it is copied, so streaming must cost little against having everything there."""
    x = torch.randn(16384, 4096, device=CUDA, dtype=torch.bfloat16)

    def milliseconds() -> float:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        with torch.inference_mode():
            for _ in range(2):
                stack(x)
            start.record()
            for _ in range(5):
                stack(x)
            end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end)

    stack.to(CUDA)
    there = milliseconds()
    stack.to("cpu")
    streaming = BlockStreaming(stack, CUDA, 0)
    streamed = milliseconds()
    streaming.remove()
    copying = 5 * 16 * true_bytes(stack.layers[0]) / 25e9 * 1000  # at 25 GB/s, as PCIe 4 does
    assert streamed < there + copying * 0.7 + 20


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_quantised_blocks_stream(kind: Any) -> None:
    torch.manual_seed(0)
    small = Stack(blocks=4)
    quantize(small, kind)
    x = torch.randn(256, 4096, device=CUDA, dtype=torch.bfloat16)
    small.to(CUDA)
    with torch.inference_mode():
        wanted = small(x)
    small.to("cpu")
    streaming = BlockStreaming(small, CUDA, true_bytes(small.layers[0]))
    with torch.inference_mode():
        assert torch.equal(small(x), wanted)
        assert torch.equal(small(x), wanted)
    streaming.remove()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_quantised_layers_leave_no_range_that_whole_ones_keep(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    small = torch.nn.Sequential(torch.nn.Linear(3072, 3072, bias=False)).to(dtype).requires_grad_(False)
    torch.nn.init.normal_(small[0].weight, std=0.02)
    x = (torch.randn(64, 3072, device=CUDA) * 16).to(dtype)
    with torch.inference_mode():
        wanted = small.to(CUDA)(x)
        quantize(small.to("cpu"), "int8", CUDA)
        found = small.to(CUDA)(x)
    assert found.isfinite().all()
    assert (found - wanted).float().norm() < 0.02 * wanted.float().norm()


def test_quantised_blocks_are_compiled_within_a_minute() -> None:
    """`engine.compile=on` then serves int8 models too; whether `auto` should is to be measured (`benchmarks gpu`)."""
    pytest.importorskip("triton")
    torch.manual_seed(0)
    small = Stack(blocks=4)
    quantize(small, "int8", CUDA)
    x = torch.randn(2048, 4096, device=CUDA, dtype=torch.bfloat16)
    with torch.inference_mode():
        wanted = small.to(CUDA)(x)
        for block in small.layers:
            block.compile()
        began = time.perf_counter()
        found = small(x)
        torch.cuda.synchronize()
    assert time.perf_counter() - began < 60
    assert (found - wanted).float().norm() < 0.02 * wanted.float().norm()


@pytest.mark.parametrize("kind", [None, "int8"])
def test_weights_stay_on_the_host_while_copies_of_them_work(kind: Any, stack: Stack) -> None:
    torch.manual_seed(0)
    small = Stack(blocks=4)
    if kind:
        quantize(small, kind, CUDA)
    originals = dict(small.named_parameters())
    x = torch.randn(64, 4096, device=CUDA, dtype=torch.bfloat16)
    small.to(CUDA)
    with torch.inference_mode():
        wanted = small(x)
    small.to("cpu")
    for _ in range(2):
        to_device(small, CUDA)
        assert weights_stayed(small) and {tensor.device.type for tensor in small.parameters()} == {"cuda"}
        with torch.inference_mode():
            assert torch.equal(small(x), wanted)
        before = torch.cuda.memory_allocated()
        to_host(small)
        assert before - torch.cuda.memory_allocated() >= true_bytes(small)
        assert {tensor.device.type for tensor in small.parameters()} == {"cpu"}
    if not kind:
        assert all(tensor is originals[name] for name, tensor in small.named_parameters())


@pytest.mark.parametrize("by_leaf", [True, False])
@pytest.mark.parametrize("on_disk", [False, True])
def test_group_offload_with_streams_computes_the_same_bits(
    by_leaf: bool,
    on_disk: bool,
    stack: Stack,
    exact: Callable[..., torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.randn(64, 4096, device=CUDA, dtype=torch.bfloat16)
    wanted = exact(x)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):  # the second time from what is on disk already
        disk = put_on_disk(stack, "test") if on_disk else None
        add_group_offload(stack, CUDA, by_leaf=by_leaf, disk=disk)
        with torch.inference_mode():
            assert all(torch.equal(stack(x), wanted) for _ in range(3))
        remove_group_offload(stack)
        assert {tensor.device.type for tensor in stack.parameters()} == {"cpu"}
    bring_back(stack)
    assert torch.equal(exact(x), wanted)


def test_four_bits_take_about_half_a_byte() -> None:
    pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    small = Stack(blocks=4)
    x = torch.randn(256, 4096, device=CUDA, dtype=torch.bfloat16)
    with torch.inference_mode():
        wanted = small.to(CUDA)(x)
        small.to("cpu")
        before = true_bytes(small)
        assert quantize(small, "int4", CUDA) == 5
        assert true_bytes(small) < before * 0.3
        error = (small(x) - wanted).float().norm() / wanted.float().norm()
        assert 0 < error < 0.5
        small.to("cpu")
        assert torch.equal(small.to(CUDA)(x), small(x))


def test_the_monitor_counts_what_the_allocator_does() -> None:
    with measured(CUDA) as peaks:
        ballast = torch.empty(100 * MIB, dtype=torch.uint8, device=CUDA)
        del ballast
    assert peaks["allocated"] >= 100 * MIB and peaks["reserved"] >= peaks["allocated"]


RESIDENT = """
from types import SimpleNamespace
from test_gpu_memory import Stack
from pipeline.memory.device.block_streaming import BlockStreaming
from pipeline.memory.device.quantization import true_bytes
stack = Stack(blocks=24)
size = true_bytes(stack.layers[0])
x = torch.randn(64, 4096, device=CUDA, dtype=torch.bfloat16)
limit(12 * size)
try:
    with torch.inference_mode():
        stack.to(CUDA)(x)
    fits = True
except torch.OutOfMemoryError:
    fits = False
stack.to('cpu'); torch.cuda.empty_cache()
streaming = BlockStreaming(stack, CUDA, 6 * size)
with torch.inference_mode():
    results = [stack(x).float().sum().item() for _ in range(4)]
print(json.dumps([fits, len(streaming.streamed), len(set(results)), torch.cuda.max_memory_reserved() <= 12 * size]))
"""


def test_a_model_larger_than_the_device_runs() -> None:
    program = f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n" + RESIDENT
    assert in_its_own_process(program) == [False, 18, 1, True]


FULL = """
from pipeline.system.failures import classify
from pipeline.loading.load import load
from pipeline.registry.model_settings import identify
from pipeline.request import MemorySettings
if sys.argv[2] == 'loaded':
    load(identify('demo')[0], MemorySettings(), 'cuda')
torch.empty(1, device='cuda')
free, _ = torch.cuda.mem_get_info()
ballast = torch.empty(free - 60 * MIB, dtype=torch.uint8, device='cuda')
try:
    a, c = torch.ones(64, 64, device='cuda'), torch.ones(1, 8, 8, 8, device='cuda')
    said = str(bool((a @ a).isfinite().all() and torch.nn.functional.conv2d(c, c).isfinite().all()))
except Exception as error:
    said = type(classify(error)).__name__
print(json.dumps(said))
"""


def test_a_full_card_has_no_room_for_handles_unless_they_were_made_before() -> None:
    assert in_its_own_process(FULL, "loaded") == "True"
    assert in_its_own_process(FULL, "bare") in ("OutOfMemory", "True")


NEARLY_FULL = """
import hashlib
from diffusers import AutoencoderKL
from pipeline.memory.device.stages import measured
torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
torch.manual_seed(0)
vae = AutoencoderKL(block_out_channels=(128, 256, 512, 512), down_block_types=('DownEncoderBlock2D',) * 4,
    up_block_types=('UpDecoderBlock2D',) * 4, layers_per_block=2, latent_channels=16).to(CUDA, torch.bfloat16).eval()
latents = torch.randn(1, 16, 128, 128, device=CUDA, dtype=torch.bfloat16)
found = []
for gib in (None, 4.5, 3.5, 3.0, 2.75, 2.5, 2.25, 2.0, 1.75, 1.5):
    torch.cuda.empty_cache()
    if gib:
        limit(int(gib * 2**30))
    said = None
    with measured(CUDA) as peaks:
        try:
            with torch.inference_mode():
                picture = vae.decode(latents)[0].float().cpu()
            said = hashlib.sha256(picture.numpy().tobytes()).hexdigest()
        except torch.OutOfMemoryError:
            pass
    found.append([gib, said, peaks.get('refused', 0)])
print(json.dumps(found))
"""


def test_bits_on_a_full_card_are_the_same_unless_memory_was_refused() -> None:
    """The record then says so; `memory.quality=exact` holds for all others."""
    (_, usual, refused), *less = in_its_own_process(NEARLY_FULL)
    assert usual and not refused
    assert [one for one in less if one[1] not in (None, usual) and not one[2]] == []


LADDER = """
import numpy as np
from held_models import requests_for
from pipeline.generation.generate import generate_bundle
from pipeline.loading.load import load
from pipeline.registry.model_settings import identify
from pipeline.request import GeneratedImage, MemorySettings
settings = identify(sys.argv[2])[0]
model = load(settings, MemorySettings(), 'cuda')
size = dict(width=512, height=512, steps=2)
plain = requests_for(model, 8, **size)
wanted = [image.pixels for _, image in generate_bundle(model, [[one] for one in plain])]
torch.cuda.synchronize(); torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats()
dict(generate_bundle(model, [plain]))
needed = max(peaks['reserved'] for peaks in model.stage_peaks.values())
torch.cuda.empty_cache()
limit(int(needed * 0.6))
made = dict(generate_bundle(model, [plain]))
kinds = sorted({type(image).__name__ for image in made.values()})
batches = sorted({getattr(image, 'batch_size', 0) for image in made.values()})
techniques = list(model.memory.techniques)
finished = {i: image for i, image in made.items() if isinstance(image, GeneratedImage)}
off = max(int(np.abs(image.pixels.astype(int) - wanted[i]).max()) for i, image in finished.items())
print(json.dumps([kinds, batches, techniques, off]))
"""


def test_the_ladder_under_a_real_limit(tiny: Callable[[str], Path]) -> None:
    kinds, batches, techniques, off = in_its_own_process(LADDER, str(tiny("sd15")))
    assert kinds == ["GeneratedImage"]
    assert max(batches) < 8 or techniques, "something had to give way"
    assert off <= (2 if "vae_tiling" not in techniques else 255)


LEVELS = """
import numpy as np
from held_models import held_by, images
from pipeline.loading.load import load
from pipeline.registry.model_settings import identify
from pipeline.memory.device.apply import apply_memory
from pipeline.memory.device.embedding_cache import EmbeddingCache
model = load(identify(sys.argv[2])[0], held_by(), 'cuda')
wanted = [image.pixels for image in images(model)]
off, where = {}, {}
for techniques in json.loads(sys.argv[3]):
    apply_memory(model, held_by(*techniques, budget_bytes=2 * 2**30))
    model.embeddings = EmbeddingCache()
    made = images(model)
    off['+'.join(techniques)] = int(max(np.abs(a.pixels.astype(int) - b).max() for a, b in zip(made, wanted)))
print(json.dumps(off))
"""


@pytest.mark.parametrize("family", ["sd15", "sdxl", "flux"])
def test_exact_techniques_change_no_bit_on_a_gpu(family: str, tiny: Callable[[str], Path]) -> None:
    combinations = [
        ["staged"],
        ["staged", "drop_encoders", "vae_slicing"],
        ["model_offload"],
        ["block_offload"],
        ["leaf_offload"],
        ["leaf_offload", "disk_offload"],
        ["resident_blocks"],
        ["drop_encoders", "resident_blocks"],
        [],
    ]
    off = in_its_own_process(LEVELS, str(tiny(family)), json.dumps(combinations))
    # Slicing decodes pictures one by one, for which cuDNN may choose another algorithm.
    assert {name: value for name, value in off.items() if value > ("vae_slicing" in name)} == {}
