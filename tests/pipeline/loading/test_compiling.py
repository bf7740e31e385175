"""Compiling by torch as it really goes, but for what makes machine code: what fails, what varies, what is recorded."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import layers_of, write_lora
from families import KINDS

from pipeline.adapters.apply import apply
from pipeline.adapters.identify_lora import identify_lora
from pipeline.adapters.specs import LoraSpec
from pipeline.generation.generate import generate_bundle
from pipeline.loading import compiling
from pipeline.loading.compiling import as_compiled
from pipeline.loading.load import load
from pipeline.loading.speed import prepare
from pipeline.memory.device import quantization
from pipeline.memory.device.block_streaming import blocks_of
from pipeline.memory.device.loaded_components import uncompile
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.registry.model_settings import identify
from pipeline.request import NO_ADAPTERS, Adapters, GeneratedImage, ImageRequest, MemorySettings, SpeedSettings
from pipeline.weights.families import FAMILIES

Backend = Callable[[Any, Any], Any]


def as_written(graph: Any, _inputs: Any) -> Any:
    return graph.forward


def failing(_graph: Any, _inputs: Any) -> Any:
    raise RuntimeError("no compiler here")


@pytest.fixture(scope="module")
def sd(tiny: Callable[[str], Path]) -> LoadedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load(identify(str(tiny("sd15")))[0], MemorySettings(), "cpu")


@pytest.fixture
def model(sd: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoadedModel]:
    """That seems to be on a GPU, where `auto` compiles."""
    find = importlib.util.find_spec  # triton comes with torch for GPUs
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: name == "triton" or find(name, *rest))
    monkeypatch.setattr(sd, "speed", SpeedSettings())
    limits = torch._dynamo.config.recompile_limit, torch._dynamo.config.fail_on_recompile_limit_hit
    yield sd
    torch._dynamo.config.recompile_limit, torch._dynamo.config.fail_on_recompile_limit_hit = limits
    apply(sd, NO_ADAPTERS)
    uncompile(sd.pipe.unet)
    vars(sd.pipe.unet).pop("cannot_be_compiled", None)
    torch._dynamo.reset()


@pytest.fixture
def backend(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Callable[[Backend], None]:
    """Sets what compiles the blocks."""

    def use(backend: Backend) -> None:
        def compile_blocks(unet: Any) -> None:
            for block in unet.modules():
                if type(block).__name__ in unet._repeated_blocks:
                    block.compile(backend=backend)

        monkeypatch.setattr(type(model.pipe.unet), "compile_repeated_blocks", compile_blocks)

    return use


def prepared(model: LoadedModel, images_alike: int = 100) -> dict[str, Any]:
    model.device = torch.device("cuda")
    try:
        return prepare(model, images_alike)
    finally:
        model.device = torch.device("cpu")


def picture(model: LoadedModel, count: int = 1) -> torch.Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
    options = {"num_inference_steps": 2, "width": 32, "height": 32, "output_type": "pt"}
    with torch.inference_mode():
        made: torch.Tensor = model.pipe(prompt=["a house"] * count, generator=generators, **options).images
    return made


def is_compiled(model: LoadedModel) -> bool:
    return any(block._compiled_call_impl is not None for block in model.pipe.unet.modules())


def test_what_compiles_is_recorded_so(model: LoadedModel, backend: Callable[[Backend], None]) -> None:
    exact, made = picture(model), []

    def counting(graph: Any, inputs: Any) -> Any:
        made.append(graph)
        return as_written(graph, inputs)

    backend(counting)
    facts = prepared(model)
    assert facts["compile"] == "blocks"
    assert torch.allclose(as_compiled(model, facts, lambda: picture(model)), exact, atol=1e-5)
    assert facts["compile"] == "blocks" and made and is_compiled(model)


def test_what_cannot_be_compiled_runs_as_written_and_is_recorded_so(
    model: LoadedModel, backend: Callable[[Backend], None]
) -> None:
    exact = picture(model)
    backend(failing)
    facts = prepared(model)
    assert torch.equal(as_compiled(model, facts, lambda: picture(model)), exact)
    assert facts["compile"] == "no" and not is_compiled(model)
    assert prepared(model)["compile"] == "no", "and is not tried again"


def test_what_was_to_be_compiled_by_name_fails(
    model: LoadedModel, backend: Callable[[Backend], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "speed", SpeedSettings(compile="on"))
    backend(failing)
    facts = prepared(model, 0)
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="no compiler here"):
        as_compiled(model, facts, lambda: picture(model))


def test_other_failures_are_not_the_compilers(model: LoadedModel, backend: Callable[[Backend], None]) -> None:
    backend(as_written)
    facts = prepared(model)

    def run() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        as_compiled(model, facts, run)
    assert facts["compile"] == "blocks" and is_compiled(model)


def test_torch_giving_up_in_silence_is_noticed(model: LoadedModel, backend: Callable[[Backend], None]) -> None:
    torch._dynamo.config.recompile_limit = 1
    exact = picture(model, 2)
    backend(as_written)
    facts = prepared(model)
    as_compiled(model, facts, lambda: picture(model))
    assert facts["compile"] == "blocks"
    facts = prepared(model)
    assert torch.equal(as_compiled(model, facts, lambda: picture(model, 2)), exact), "another shape"
    assert facts["compile"] == "no" and not is_compiled(model)


@pytest.mark.slow
def test_each_weight_of_a_lora_is_compiled_anew_and_no_variants_pile_up(
    model: LoadedModel, backend: Callable[[Backend], None], tmp_path: Path
) -> None:
    torch._dynamo.config.recompile_limit = 2
    path = write_lora(tmp_path / "style.safetensors", layers_of(model.pipe, "unet"))
    for weight in (0.25, 0.5, 0.75, 1.0):
        lora = identify_lora(LoraSpec(path, weight), model.files)
        apply(model, Adapters(loras=(lora,)))
        exact = picture(model)
        backend(as_written)
        facts = prepared(model, compiling.REGIONAL_BREAK_EVEN)
        assert torch.allclose(as_compiled(model, facts, lambda: picture(model)), exact, atol=1e-5)
        assert facts["compile"] == "blocks", "not given up at the limit"
        few = identify_lora(LoraSpec(path, weight + 0.1), model.files)
        apply(model, Adapters(loras=(few,)))
        assert prepared(model, compiling.REGIONAL_BREAK_EVEN - 1)["compile"] == "no" and not is_compiled(model)


A_FEW_QUANTISED = {*zip(KINDS, ("int8", "float8", "int8"), strict=True)}
QUANTISED = [
    pytest.param(family, kind, marks=() if (family, kind) in A_FEW_QUANTISED else pytest.mark.campaign)
    for family in FAMILIES
    for kind in ("int8", "float8")
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "kind"), QUANTISED)
def test_blocks_of_a_quantised_denoiser_are_traced_without_a_break(
    family: str, kind: str, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` leaves them uncompiled, as measured with torchao's tensors; ours are plain ones."""
    from torch._dynamo.testing import CompileCounter

    monkeypatch.setattr(quantization, "SMALLEST", 1)  # or the tiniest models have none
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = MemorySettings(techniques=(f"denoiser_{kind}",))
        model = load(identify(str(tiny(family)))[0], quantised, "cpu")
    denoiser, counter = getattr(model.pipe, model.files.denoiser), CompileCounter()
    blocks = blocks_of(denoiser)
    assert any(hasattr(layer, "scale") for block in blocks for layer in block.modules())
    exact = picture(model)
    for block in blocks:
        block.compile(backend=counter, fullgraph=True)
    try:
        assert torch.equal(picture(model), exact)
        assert counter.frame_count > 0
    finally:
        torch._dynamo.reset()


def test_pictures_of_a_bundle_say_how_they_were_made(
    model: LoadedModel, backend: Callable[[Backend], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "_is_wanted", lambda unet, *_: "cannot_be_compiled" not in vars(unet))
    requests = [
        ImageRequest("a house", "", seed, 2, 5.0, 32, 32, "DDIM", None, model.settings, model.memory)
        for seed in range(2)
    ]
    for one, expected in ((as_written, "blocks"), (failing, "no")):
        uncompile(model.pipe.unet)
        torch._dynamo.reset()
        backend(one)
        made = [outcome for _, outcome in generate_bundle(model, [[request] for request in requests])]
        assert all(isinstance(outcome, GeneratedImage) for outcome in made)
        assert [outcome.runtime["compile"] for outcome in made] == [expected] * 2  # type: ignore[union-attr]
