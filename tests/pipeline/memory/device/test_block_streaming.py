"""Blocks that pass through the device: the same bits as at home, whatever order they run in."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import a_few

from pipeline.memory.device.block_streaming import BlockStreaming, blocks_of
from pipeline.memory.device.quantization import quantize, true_bytes

CPU = torch.device("cpu")
DENOISERS = {
    "sd15": "unet",
    "sdxl": "unet",
    "sd3": "transformer",
    "flux": "transformer",
    "flux2_klein": "transformer",
    "qwen_image": "transformer",
    "z_image": "transformer",
    "sana": "transformer",
    "pixart_sigma": "transformer",
    "lumina2": "transformer",
    "chroma": "transformer",
}


@pytest.fixture(scope="module")
def pipes(tiny: Callable[[str], Path]) -> Callable[[str], Any]:
    import diffusers

    known: dict[str, Any] = {}

    def pipe(family: str) -> Any:
        if family not in known:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                known[family] = diffusers.DiffusionPipeline.from_pretrained(tiny(family), local_files_only=True)
            known[family].set_progress_bar_config(disable=True)
            for component in known[family].components.values():
                if isinstance(component, torch.nn.Module):
                    component.requires_grad_(False).eval()
        return known[family]

    return pipe


def picture(pipe: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    options = {"num_inference_steps": 3, "width": 64, "height": 64, "output_type": "pt"}
    if "use_resolution_binning" in inspect.signature(type(pipe).__call__).parameters:
        options["use_resolution_binning"] = False  # else it draws 1024 x 1024 and shrinks it
    with torch.inference_mode():
        return pipe(prompt="a red house", generator=generator, **options).images


def where(module: torch.nn.Module) -> dict[str, int]:
    return {name: tensor.data_ptr() for name, tensor in [*module.named_parameters(), *module.named_buffers()]}


@pytest.fixture
def streamed() -> Iterator[Callable[..., BlockStreaming]]:
    used: list[BlockStreaming] = []

    def stream(module: torch.nn.Module, resident_bytes: int = 0) -> BlockStreaming:
        used.append(BlockStreaming(module, CPU, resident_bytes))
        return used[-1]

    yield stream
    for streaming in used:
        streaming.remove()


@pytest.mark.parametrize("family", a_few(DENOISERS))
@pytest.mark.slow
def test_every_family_makes_the_same_bits(
    family: str, pipes: Callable[[str], Any], streamed: Callable[..., BlockStreaming]
) -> None:
    pipe = pipes(family)
    exact, home = picture(pipe), where(getattr(pipe, DENOISERS[family]))
    modules = {name: part for name, part in pipe.components.items() if name.startswith("text_encoder")}
    for name, module in {DENOISERS[family]: getattr(pipe, DENOISERS[family]), **modules}.items():
        for share in (0.0, 0.6):
            blocks = blocks_of(module)
            streaming = streamed(module, int(share * sum(map(true_bytes, blocks))))
            assert len(streaming.streamed) > 0 and len(blocks) > 1, name
            assert torch.equal(picture(pipe), exact), (name, share)
            streaming.remove()
    assert where(getattr(pipe, DENOISERS[family])) == home, "the very tensors that were there before"
    assert torch.equal(picture(pipe), exact)
    assert not [m for m in getattr(pipe, DENOISERS[family]).modules() if m._forward_pre_hooks or m._forward_hooks]


def test_blocks_of_a_unet_are_its_residual_and_transformer_blocks(pipes: Callable[[str], Any]) -> None:
    unet = pipes("sd15").unet
    blocks = blocks_of(unet)
    assert {type(block).__name__ for block in blocks} == {"ResnetBlock2D", "BasicTransformerBlock"}
    assert len({id(block) for block in blocks}) == len(blocks)
    assert sum(map(true_bytes, blocks)) > 0.8 * true_bytes(unet)


class Chain(torch.nn.Module):
    """Eight blocks, run in any order that the caller says."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(16, 16)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(16, 16) for _ in range(8))
        self.register_buffer("shift", torch.randn(16))
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor, order: list[int]) -> torch.Tensor:
        x = self.first(x) + self.shift
        for index in order:
            x = torch.tanh(self.layers[index](x))
        return x


@pytest.mark.parametrize("resident", [0, 3])
def test_skipped_repeated_and_reordered_blocks_change_nothing(
    resident: int, streamed: Callable[..., BlockStreaming]
) -> None:
    torch.manual_seed(0)
    chain, x = Chain(), torch.randn(4, 16)
    orders = [[*range(8)], [*range(8)], [7, 3, 1], [0, 0, 5, 5], [], [4], [*reversed(range(8))]]
    exact = [chain(x, order) for order in orders]
    streaming = streamed(chain, resident * true_bytes(chain.layers[0]))
    assert len(streaming.streamed) == 8 - resident
    for order, expected in zip(orders, exact, strict=True):
        assert torch.equal(chain(x, order), expected), order


def test_blocks_that_pass_are_spread_among_those_that_stay(streamed: Callable[..., BlockStreaming]) -> None:
    """So that each has the time of several to be copied in."""
    chain = Chain()
    streaming = streamed(chain)
    for resident, passing in ((0, [*range(8)]), (4, [1, 3, 5, 7]), (6, [3, 7]), (7, [7]), (8, [])):
        streaming.resize(resident * true_bytes(chain.layers[0]))
        assert streaming.streamed == [chain.layers[index] for index in passing]


def away(chain: Chain, home: dict[str, int]) -> list[int]:
    """The blocks that are copies on the device now."""
    now = where(chain)
    return [index for index in range(8) if now[f"layers.{index}.weight"] != home[f"layers.{index}.weight"]]


def test_never_more_than_two_blocks_pass_at_once(streamed: Callable[..., BlockStreaming]) -> None:
    chain, x = Chain(), torch.randn(1, 16)
    home = where(chain)
    streaming = streamed(chain, 2 * true_bytes(chain.layers[0]))
    seen: list[list[int]] = []
    handles = [layer.register_forward_pre_hook(lambda *_: seen.append(away(chain, home))) for layer in chain.layers]
    for order in ([*range(8)], [*range(8)], [0, 5, 2, 7]):
        chain(x, order)
    for handle in handles:
        handle.remove()
    passing = [[index for index in now if index not in (0, 4)] for now in seen]
    assert all({0, 4} <= {*now} for now in seen), "two are there to stay"
    assert passing[8 + 3] == [3, 5], "from the second time on, the next one is on its way"
    assert max(map(len, passing)) == 2
    streaming.leave()
    assert where(chain) == home


def test_an_exception_leaves_no_block_behind(streamed: Callable[..., BlockStreaming]) -> None:
    chain, x = Chain(), torch.randn(1, 16)
    home, exact = where(chain), chain(x, [*range(8)])
    streaming = streamed(chain)
    with pytest.raises(RuntimeError):
        chain(torch.randn(1, 15), [0])
    with pytest.raises(IndexError):
        chain(x, [3, 99])
    assert torch.equal(chain(x, [*range(8)]), exact)
    streaming.remove()
    assert where(chain) == home


def test_layers_that_are_added_later_come_along(streamed: Callable[..., BlockStreaming]) -> None:
    chain, x = Chain(), torch.randn(1, 16)
    streaming = streamed(chain)
    plain = chain(x, [0])
    chain.layers[0].register_module("lora", torch.nn.Linear(16, 16).requires_grad_(False))
    seen = []
    chain.layers[0].register_forward_pre_hook(lambda layer, _: seen.append(layer.lora.weight.data_ptr()))
    streaming.leave()
    home = chain.layers[0].lora.weight.data_ptr()
    assert torch.equal(chain(x, [0]), plain)
    assert seen[0] != home and chain.layers[0].lora.weight.data_ptr() == home


def test_the_budget_can_change_while_it_runs(streamed: Callable[..., BlockStreaming]) -> None:
    chain, x = Chain(), torch.randn(1, 16)
    exact, size, home = chain(x, [*range(8)]), true_bytes(chain.layers[0]), where(chain)
    streaming = streamed(chain)
    for count in (8, 0, 5, 3):
        streaming.resize(count * size)
        assert torch.equal(chain(x, [*range(8)]), exact)
        assert len(streaming.streamed) == 8 - count
        assert streaming.entered
    streaming.leave()
    assert where(chain) == home


def test_quantised_blocks_pass_too(streamed: Callable[..., BlockStreaming]) -> None:
    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList(torch.nn.Linear(64, 64) for _ in range(3))
    quantize(model, "int8")
    x = torch.randn(1, 64)
    exact = [layer(x) for layer in model.layers]
    streaming = streamed(model)
    with torch.inference_mode():
        streaming.enter()
    assert all(torch.equal(layer(x), expected) for layer, expected in zip(model.layers, exact, strict=True))
    assert len(streaming.streamed) == 3
