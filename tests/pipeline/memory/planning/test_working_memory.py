"""The tables of working memory and of parts, counted again on the real architectures without their storage."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from families import a_few

from pipeline.memory.device.block_streaming import blocks_of
from pipeline.memory.device.quantization import _layers
from pipeline.memory.planning.working_memory import (
    ENCODERS,
    denoise_elements,
    denoise_operations,
    denoiser_parts,
    encoder_parts,
)
from pipeline.weights.families import FAMILIES

pytestmark = pytest.mark.slow

SDXL = {
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "sd15": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sdxl": SDXL,
    "flux": {"guidance_embeds": True},
    "z_image": {},
    "sana": {},
}
"""The published configurations, as far as they differ from the classes' defaults."""


def inputs(family: str, side: int, batch: int) -> dict[str, Any]:
    import torch

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, dtype=torch.bfloat16, device="meta")

    latent, tokens = side // 8, (side // 16) ** 2
    by_family: dict[str, Callable[[], dict[str, Any]]] = {
        "sd15": lambda: {
            "sample": empty(batch, 4, latent, latent),
            "timestep": empty(batch),
            "encoder_hidden_states": empty(batch, 77, 768),
        },
        "sdxl": lambda: {
            "sample": empty(batch, 4, latent, latent),
            "timestep": empty(batch),
            "encoder_hidden_states": empty(batch, 77, 2048),
            "added_cond_kwargs": {"text_embeds": empty(batch, 1280), "time_ids": empty(batch, 6)},
        },
        "flux": lambda: {
            "hidden_states": empty(batch, tokens, 64),
            "encoder_hidden_states": empty(batch, 512, 4096),
            "pooled_projections": empty(batch, 768),
            "timestep": empty(batch),
            "guidance": empty(batch),
            "img_ids": empty(tokens, 3),
            "txt_ids": empty(512, 3),
        },
        "z_image": lambda: {
            "x": [empty(16, 1, latent, latent) for _ in range(batch)],
            "t": empty(batch),
            "cap_feats": [empty(512, 2560) for _ in range(batch)],
        },
        "sana": lambda: {
            "hidden_states": empty(batch, 32, side // 32, side // 32),
            "encoder_hidden_states": empty(batch, 300, 2304),
            "encoder_attention_mask": empty(batch, 300),
            "timestep": empty(batch),
        },
    }
    return by_family[family]()


def peak_elements(model: Any, arguments: dict[str, Any], order: tuple[int, ...] = ()) -> float:
    """The most elements of two bytes that are alive at once in a forward pass, inputs and weights not counted.

    Unless `order` has the bytes of the layers in the order in which they run: then the weights of the one at work and
    of the following one count.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Alive(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.alive = self.peak = self.weights = 0
            given = [one for one in tree_leaves(arguments) if isinstance(one, torch.Tensor)]
            self.kept = [one.untyped_storage() for one in (*model.parameters(), *model.buffers(), *given)]
            self.known: dict[int, Any] = {storage._cdata: None for storage in self.kept}

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = function(*args, **(kwargs or {}))
            for tensor in tree_leaves(made):
                if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.known:
                    self._watch(tensor.untyped_storage())
            return made

        def _watch(self, storage: Any) -> None:
            key, size = storage._cdata, storage.nbytes()

            def gone(_: Any) -> None:
                self.alive -= size
                self.known.pop(key, None)

            self.known[key] = weakref.ref(storage, gone)
            self.alive += size
            self.peak = max(self.peak, self.alive + self.weights)

        def fetch(self, *layers: int) -> None:
            self.weights = sum(layers)
            self.peak = max(self.peak, self.alive + self.weights)

    alive, left = Alive(), list(order)
    with torch.no_grad(), ExitStack() as hooks:
        for layer in layers_of(model) if order else ():
            hooks.callback(layer.register_forward_pre_hook(lambda *_: alive.fetch(*left[:2])).remove)
            hooks.callback(layer.register_forward_hook(lambda *_: alive.fetch(*[left.pop(0), *left[:1]][1:])).remove)
        with alive:
            model(**arguments, return_dict=False)
    return alive.peak / 2


def layers_of(model: Any) -> list[Any]:
    """What diffusers streams layer by layer."""
    import torch

    kinds = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Embedding)
    return [module for module in model.modules() if isinstance(module, kinds)]


@pytest.fixture(scope="module", params=a_few(CONFIGS, ["sdxl", "flux"]))
def denoiser(request: pytest.FixtureRequest) -> tuple[str, Any]:
    import diffusers
    import torch

    known = FAMILIES[request.param]
    with torch.device("meta"):
        model = getattr(diffusers, known.denoiser_class)(**CONFIGS[request.param])
    return request.param, model.to(torch.bfloat16).requires_grad_(False).eval()


@pytest.fixture
def fused_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def fused(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
        return query.new_empty(*query.shape[:-1], value.shape[-1])

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", fused)


@pytest.mark.usefixtures("fused_attention")
@pytest.mark.parametrize(("share", "batch"), [(1, 1), (0.5, 1), (1, 2)])
def test_denoisers_keep_so_much_alive(denoiser: tuple[str, Any], share: float, batch: int) -> None:
    family, model = denoiser
    side = int(FAMILIES[family].size * share)
    counted = peak_elements(model, inputs(family, side, batch))
    parameters = sum(weight.numel() for weight in model.parameters())
    assert counted == pytest.approx(batch * denoise_elements(family, parameters, side, side), rel=0.03)


def test_denoisers_compute_so_much(denoiser: tuple[str, Any]) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    family, model = denoiser
    side, parameters = FAMILIES[family].size, sum(weight.numel() for weight in model.parameters())
    with FlopCounterMode(display=False) as counter:
        model(**inputs(family, side, 1))
    assert counter.get_total_flops() == pytest.approx(denoise_operations(family, parameters, side, side), rel=0.05)


@pytest.mark.usefixtures("fused_attention")
def test_streaming_layer_by_layer_adds_at_most_the_largest_layer(denoiser: tuple[str, Any]) -> None:
    family, model = denoiser
    side, order = FAMILIES[family].size, list[int]()
    with ExitStack() as hooks:
        for layer in layers_of(model):
            size = sum(weight.nbytes for weight in layer.parameters())
            hooks.callback(layer.register_forward_pre_hook(lambda *_, size=size: order.append(size)).remove)
        model(**inputs(family, side, 1))
    parameters = sum(weight.numel() for weight in model.parameters())
    largest = denoiser_parts(family).leaves * parameters
    assert largest == pytest.approx(max(order) / 2, rel=0.05)
    counted = peak_elements(model, inputs(family, side, 1), tuple(order))
    predicted = denoise_elements(family, parameters, side, side) + largest
    assert counted * 0.999 <= predicted <= counted + 1.1 * largest


@pytest.mark.usefixtures("fused_attention")
def test_loras_on_all_layers_keep_so_much_more_alive(denoiser: tuple[str, Any]) -> None:
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    family, model = denoiser
    parameters = sum(weight.numel() for weight in model.parameters())
    model, side = copy.deepcopy(model), FAMILIES[family].size
    layers = [
        name
        for name, layer in model.named_modules()
        if type(layer) is torch.nn.Linear and ("blocks" in name or "layers" in name)
    ]
    with torch.device("meta"):
        inject_adapter_in_model(LoraConfig(r=16, target_modules=layers), model, adapter_name="one")
    model.to(torch.bfloat16).requires_grad_(False)
    counted = peak_elements(model, inputs(family, side, 1))
    assert counted == pytest.approx(denoise_elements(family, parameters, side, side, with_loras=True), rel=0.03)


def test_parts_are_spread_so(denoiser: tuple[str, Any]) -> None:
    family, model = denoiser

    def count(module: Any) -> int:
        return sum(weight.numel() for weight in module.parameters())

    total, known = count(model), denoiser_parts(family)
    blocks = sorted((count(block) for block in blocks_of(model)), reverse=True)
    assert known.fixed == pytest.approx(1 - sum(blocks) / total, abs=0.002)
    assert known.passing == pytest.approx(sum(blocks[:2]) / total, abs=0.002)
    linear = sum(layer.weight.numel() for layer in _layers(model).values())
    assert known.linear == pytest.approx(linear / total, abs=0.002)


ENCODER_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "CLIPTextModel": (
        "CLIPTextConfig",
        {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    ),
    "CLIPTextModelWithProjection": (
        "CLIPTextConfig",
        {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
         "projection_dim": 1280},
    ),
    "Gemma2Model": ("Gemma2Config", {}),
    "Qwen3ForCausalLM": (
        "Qwen3Config",
        {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32,
         "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True},
    ),
    "T5EncoderModel": (
        "T5Config",
        {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "feed_forward_proj": "gated-gelu"},
    ),
    "Qwen2_5_VLForConditionalGeneration": (
        "Qwen2_5_VLConfig",
        {
            "text_config": {"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944,
                            "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
                            "tie_word_embeddings": False},
            "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
                              "out_hidden_size": 3584},
        },
    ),
}  # fmt: skip
"""The published configurations of text encoders, as far as they differ from the classes' defaults."""


@pytest.mark.parametrize("name", a_few(ENCODER_CONFIGS, ["CLIPTextModel", "T5EncoderModel"]))
def test_of_an_encoder_so_much_is_quantised_and_its_largest_layer_is_so_large(name: str) -> None:
    import torch
    import transformers

    config, options = ENCODER_CONFIGS[name]
    with torch.device("meta"):
        model = getattr(transformers, name)(getattr(transformers, config)(**options))
    total = sum(weight.numel() for weight in model.parameters())
    assert min(abs(total - parameters) for parameters, _ in ENCODERS) < 0.001 * total
    layers, known = [layer.weight.numel() for layer in _layers(model).values()], encoder_parts(total)
    assert known.linear == pytest.approx(sum(layers) / total, abs=0.002)
    assert known.unpacked == pytest.approx(max(layers) / total, abs=0.0001)
