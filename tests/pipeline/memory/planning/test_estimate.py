"""The estimate against figures that others have published or that were counted elsewhere, and how it moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.memory.planning.estimate import OVERHEAD, STAGES, Estimate, Shape, Sizes, estimate, resident_bytes
from pipeline.memory.planning.sizes import IDLE_LORA_BYTES, ComponentSize
from pipeline.memory.planning.techniques import TECHNIQUES, impossible, ordered
from pipeline.request import MemorySettings
from pipeline.weights.families import FAMILIES
from pipeline.weights.model_files import Component, ModelFiles

GIB = 2**30
SD3_LARGE = {"transformer": 8.057e9}


def held(*techniques: str, **settings: Any) -> MemorySettings:
    return MemorySettings(**{"dtype": "bfloat16", "techniques": ordered(techniques), **settings})


def native(family: str, batch: int = 1) -> Shape:
    return Shape(FAMILIES[family].size, FAMILIES[family].size, batch, guided=True)


def predict(family: str, *techniques: str, device: str = "cuda", batch: int = 1, **settings: Any) -> Estimate:
    return estimate(Sizes.published(FAMILIES[family]), held(*techniques, **settings), native(family, batch), device)


def weights(family: str, *techniques: str, **counts: float) -> dict[str, float]:
    """GiB by component."""
    memory = held(*techniques)
    components = Sizes.published(FAMILIES[family], counts).components
    return {component.name: component.held_bytes(memory) / GIB for component in components}


@pytest.mark.parametrize(
    ("family", "counts", "total", "largest"),
    [
        ("sd15", {}, 2.0, 1.6),
        ("sdxl", {}, 6.5, 4.8),
        ("sd3", {}, 14.7, 8.9),
        ("sd3", SD3_LARGE, 25.6, 15.0),
        ("flux", {}, 31.4, 22.2),
        ("flux2_klein", {}, 14.9, 7.5),
        ("qwen_image", {}, 54.0, 38.0),
        ("z_image", {}, 19.1, 11.5),
        ("sana", {}, 8.4, 4.9),
        ("pixart_sigma", {}, 10.2, 8.9),
        ("lumina2", {}, 9.9, 4.9),
        ("chroma", {}, 25.6, 16.6),
    ],
)
def test_weights_agree_with_the_published_models(
    family: str, counts: dict[str, float], total: float, largest: float
) -> None:
    there = weights(family, **counts)
    assert sum(there.values()) == pytest.approx(total, rel=0.02, abs=0.05)
    assert max(there.values()) == pytest.approx(largest, rel=0.02)


@pytest.mark.parametrize(
    ("family", "name", "eight_bits", "four_bits"),
    [
        ("flux", "transformer", 11.1, 6.1),
        ("flux2_klein", "transformer", 3.61, 1.99),
        ("qwen_image", "transformer", 19.0, 10.5),
        ("z_image", "transformer", 5.73, 3.15),
        ("chroma", "transformer", 8.3, 4.6),
        ("flux", "text_encoder_2", 4.44, 2.44),
    ],
)
def test_quantised_weights_agree_with_the_table(family: str, name: str, eight_bits: float, four_bits: float) -> None:
    assert weights(family, "denoiser_int8", "encoder_int8")[name] == pytest.approx(eight_bits, rel=0.03)
    assert weights(family, "denoiser_int4", "encoder_int4")[name] == pytest.approx(
        four_bits, rel=0.1
    )  # vocabularies stay


def test_what_cannot_be_quantised_keeps_its_size() -> None:
    """Most of SD 1.5's UNet are convolutions, and a fifth of Gemma is its vocabulary."""
    assert weights("sd15", "denoiser_int8")["unet"] > 0.8 * weights("sd15")["unet"]
    assert weights("sana", "encoder_int8")["text_encoder"] > 0.6 * weights("sana")["text_encoder"]
    assert weights("sdxl", "encoder_int8", "denoiser_int8")["vae"] == weights("sdxl")["vae"]


@pytest.mark.parametrize(
    ("family", "layer"),
    [
        ("flux", 4096 * 10240),  # T5's feed-forward; its vocabulary is larger and never quantised
        ("z_image", 2560 * 9728),
        ("qwen_image", 152064 * 3584),  # what makes words of numbers again: it runs, and is quantised
    ],
)
@pytest.mark.parametrize("kind", ["int8", "float8", "int4"])
def test_a_quantised_encoder_unpacks_its_largest_layer(family: str, layer: int, kind: str) -> None:
    exact = predict(family, "staged").stage_bytes["encode"]
    small = predict(family, "staged", f"encoder_{kind}").stage_bytes["encode"]
    saved = (sum(weights(family).values()) - sum(weights(family, f"encoder_{kind}").values())) * GIB
    assert small - (exact - saved) == pytest.approx(2 * layer, rel=0.02)


@pytest.mark.parametrize(
    ("name", "stage", "layer"),
    [("transformer", "denoise", 3072 * 18432), ("text_encoder_2", "encode", 4096 * 10240)],
)
def test_what_is_stored_in_fewer_bits_is_unpacked_as_well(name: str, stage: str, layer: int) -> None:
    """Such as GGUF, whatever the techniques."""
    exact = Sizes.published(FAMILIES["flux"])
    parts = (replace(one, stored_bytes=10**9 if one.name == name else None) for one in exact.components)
    stored = replace(exact, components=tuple(parts))
    small, large = (estimate(one, held("staged"), native("flux"), "cuda").stage_bytes for one in (stored, exact))
    saved = weights("flux")[name] * GIB - 10**9
    assert small[stage] - (large[stage] - saved) == pytest.approx(2 * layer, rel=0.02)


DIFFUSERS = "huggingface/diffusers, benchmarks: FLUX.1-dev, one forward pass"
DIFFSYNTH = "modelscope/DiffSynth-Studio, VRAM_management.md: Qwen-Image"
CARDS = "the models' published weights in 16 bits"
KNOWN: list[tuple[str, str, tuple[str, ...], str, str]] = [
    # source, family, techniques, what of the estimate, GiB
    ("huggingface/diffusers#12648: FLUX.1-dev before a step cache", "flux", (), "peak", "33.8"),
    (DIFFUSERS, "flux", ("staged",), "denoise", "22.6"),
    (DIFFUSERS, "flux", ("leaf_offload",), "denoise", "0.56"),
    (DIFFUSERS, "flux", ("staged", "denoiser_int4"), "denoise", "6.7"),
    ("SDXL, one decoded in float16, reserved by torch", "sdxl", ("staged",), "decode", "3.2"),
    (DIFFSYNTH, "qwen_image", (), "peak", "56"),
    (DIFFSYNTH, "qwen_image", ("model_offload",), "peak", "40"),
    (DIFFSYNTH, "qwen_image", ("staged", "fp8_storage", "encoder_float8"), "peak", "21"),
    (CARDS, "z_image", (), "weights", "19.1"),
    (CARDS, "z_image", (), "largest", "11.5"),
]


@pytest.mark.parametrize(("source", "family", "techniques", "what", "known"), KNOWN)
def test_known_figures_are_predicted_and_at_most_a_tenth_more(
    source: str, family: str, techniques: tuple[str, ...], what: str, known: str
) -> None:
    """Never less than was found by others, as precisely as they say it."""
    there, found = weights(family, *techniques).values(), predict(family, *techniques)
    of = {"peak": found.peak_bytes / GIB, "weights": sum(there), "largest": max(there)}
    predicted = of[what] if what in of else found.stage_bytes[what] / GIB
    digits = len(known.partition(".")[2])
    assert float(known) <= round(predicted, digits) <= round(1.1 * float(known), digits), source


@pytest.mark.parametrize(
    ("family", "dtype", "size", "techniques", "gigabytes"),
    [
        ("sdxl", "bfloat16", 1024, (), 4.6),
        ("sdxl", "float16", 1024, (), 9.2),  # its VAE is held as float32
        ("qwen_image", "bfloat16", 1024, (), 6.1),
        ("sd15", "float16", 512, (), 1.15),
        ("sdxl", "bfloat16", 1024, ("vae_tiling",), 1.4),
        ("qwen_image", "bfloat16", 1024, ("vae_tiling",), 1.9),
    ],
)
def test_decoding_takes_two_thirds_or_more_of_what_invokeai_reserves(
    family: str, dtype: str, size: int, techniques: tuple[str, ...], gigabytes: float
) -> None:
    sizes, memory = Sizes.published(FAMILIES[family]), held("staged", *techniques, dtype=dtype)
    stages = estimate(sizes, memory, Shape(size, size), "cuda").stage_bytes
    (vae,) = (one for one in sizes.components if one.role == "vae")
    assert 0.67 < (stages["decode"] - vae.held_bytes(memory)) / (gigabytes * 1e9) < 0.8


def test_slicing_decodes_one_by_one_and_a_tiny_vae_needs_little() -> None:
    batch = predict("flux", "staged", batch=4).stage_bytes["decode"]
    sliced = predict("flux", "staged", "vae_slicing", batch=4).stage_bytes["decode"]
    assert sliced == predict("flux", "staged").stage_bytes["decode"] < batch / 3
    tiny = predict("flux", "staged", "tiny_vae", tiny_vae_source="x").stage_bytes["decode"]
    assert tiny < sliced / 3


def test_guidance_doubles_the_batch_only_where_both_go_through_at_once() -> None:
    def grows(family: str) -> float:
        sizes, memory = Sizes.published(FAMILIES[family]), held()
        alone, guided = (
            estimate(sizes, memory, replace(native(family), guided=guided), "cuda").stage_bytes["denoise"]
            for guided in (False, True)
        )
        return guided - alone

    assert grows("sdxl") > 0 and grows("sd3") > 0
    assert grows("qwen_image") == grows("z_image") == 0


def test_each_technique_takes_off_the_device_what_it_says() -> None:
    resident = predict("flux").stage_bytes
    staged = predict("flux", "staged").stage_bytes
    total = sum(weights("flux").values()) * GIB
    for stage in STAGES:
        assert resident[stage] > total > staged[stage]
    dropped = predict("flux", "drop_encoders").stage_bytes
    assert dropped["encode"] == resident["encode"]
    encoders = sum(size for name, size in weights("flux").items() if name.startswith("text_encoder"))
    assert (resident["denoise"] - dropped["denoise"]) / GIB == pytest.approx(encoders, abs=0.001)
    one_by_one = predict("sd3", "model_offload").stage_bytes
    assert one_by_one["encode"] < predict("sd3", "staged").stage_bytes["encode"]
    assert predict("flux", "block_offload").stage_bytes["denoise"] < 2.5 * GIB


def test_streaming_from_disk_spares_the_host_and_from_memory_does_not() -> None:
    from_memory, from_disk = (predict("flux", "leaf_offload", *more) for more in ((), ("disk_offload",)))
    assert from_memory.peak_bytes == from_disk.peak_bytes
    assert from_memory.host_bytes > 2 * (22.2 + 8.9) * GIB > from_disk.host_bytes


def test_weights_that_lie_in_their_files_as_they_are_used_need_the_host_only_where_they_pass_in_every_step() -> None:
    """Of FLUX.1, exact in 24 GB, a few blocks are streamed; the rest of 31 GB is read once a bundle."""
    process = predict("flux", "staged").host_bytes
    assert process == 1.5 * GIB
    exact = predict("flux", "staged", "resident_blocks", budget_bytes=int(22.8 * GIB))
    assert 0 < exact.host_bytes - process < 2 * GIB
    quantised = predict("flux", "staged", "denoiser_int8")
    assert quantised.host_bytes - process == pytest.approx(11.1 * GIB, rel=0.03)
    converted = predict("flux", "staged", dtype="float32")
    assert converted.host_bytes - process == pytest.approx(2 * 31.4 * GIB, rel=0.02)


def test_on_a_cpu_the_device_is_the_host_and_stages_save_nothing() -> None:
    plain = predict("sdxl", device="cpu", dtype="float32")
    assert plain.host_bytes == plain.peak_bytes
    for technique in ("staged", "model_offload", "leaf_offload", "resident_blocks"):
        assert predict("sdxl", technique, device="cpu", dtype="float32") == plain
    streamed = predict("sdxl", "leaf_offload", "disk_offload", device="cpu", dtype="float32")
    assert streamed.peak_bytes < plain.peak_bytes
    elsewhere = predict("sdxl", "leaf_offload", "disk_offload", device="cuda", dtype="float32")
    for stage in ("encode", "denoise"):  # where the VAE is in the same memory all the time
        assert streamed.stage_bytes[stage] - elsewhere.stage_bytes[stage] == pytest.approx(4 * 0.084e9, rel=0.01)


@pytest.mark.parametrize("gigabytes", [4, 8, 12, 16, 24])
@pytest.mark.parametrize("family", ["flux", "qwen_image", "z_image", "sdxl"])
def test_resident_blocks_fill_the_budget_and_never_more(family: str, gigabytes: int) -> None:
    techniques = ("staged", "resident_blocks", "vae_tiling")
    found = predict(family, *techniques, budget_bytes=gigabytes * GIB)
    denoise = found.stage_bytes["denoise"] + OVERHEAD["cuda"]
    whole = predict(family, "staged", "vae_tiling").stage_bytes["denoise"] + OVERHEAD["cuda"]
    assert denoise == pytest.approx(min(whole, gigabytes * GIB), abs=4)


def test_resident_bytes_are_what_the_budget_leaves() -> None:
    sizes, shape = Sizes.published(FAMILIES["flux"]), native("flux")

    def stays(gigabytes: float, role: Any = "denoiser") -> int:
        memory = held("staged", "resident_blocks", budget_bytes=int(gigabytes * GIB))
        return resident_bytes(sizes, memory, shape, "cuda", role)

    assert stays(1) == 0
    assert stays(13) - stays(12) == pytest.approx(GIB, abs=4)
    assert stays(40) / GIB == pytest.approx(22.2, rel=0.01)
    assert stays(40, "encoder") / GIB == pytest.approx(8.9, rel=0.01)
    assert resident_bytes(sizes, held("resident_blocks"), shape, "cuda", "denoiser") == 0


COMPOSABLE = st.sets(st.sampled_from([*TECHNIQUES])).map(ordered).filter(lambda on: not any(impossible(on, "cuda")))


@given(
    family=st.sampled_from([*FAMILIES]),
    on=COMPOSABLE,
    width=st.integers(16, 256).map(lambda side: side * 8),
    batch=st.integers(1, 8),
)
def test_more_pixels_and_larger_batches_never_need_less(
    family: str, on: tuple[str, ...], width: int, batch: int
) -> None:
    sizes, memory = Sizes.published(FAMILIES[family]), held(*on, budget_bytes=8 * GIB)

    def peak(shape: Shape) -> int:
        return estimate(sizes, memory, shape, "cuda").peak_bytes

    one = peak(Shape(width, width, batch))
    assert 0 < one <= peak(Shape(width, width, batch + 1)) and one <= peak(Shape(width, width + 64, batch))


@given(family=st.sampled_from([*FAMILIES]), on=COMPOSABLE)
def test_no_technique_adds_to_the_peak(family: str, on: tuple[str, ...]) -> None:
    plain = predict(family, batch=2)
    assert predict(family, *on, batch=2, budget_bytes=4 * GIB).peak_bytes <= plain.peak_bytes


@pytest.mark.parametrize("family", FAMILIES)
def test_an_unknown_architecture_is_taken_for_the_worst_known_one(family: str) -> None:
    known = Sizes.published(FAMILIES[family])
    unknown = Sizes(None, tuple(replace(component, family=None) for component in known.components))
    shape = native(family)
    for techniques in ((), ("staged",), ("staged", "denoiser_int8"), ("leaf_offload",)):
        guess, truth = (estimate(sizes, held(*techniques), shape, "cuda").stage_bytes for sizes in (unknown, known))
        for stage in STAGES:
            assert guess[stage] >= truth[stage]


def model_files(*components: Component, family: str | None = "flux") -> ModelFiles:
    return ModelFiles(
        path=Path("m"), layout="folder", pipeline_class="FluxPipeline", family=family, label="", files=(), variant=None,
        scheduler_class="", scheduler_config={}, max_clip_skip=None, width=1024, height=1024, components=components,
        denoiser="transformer",
    )  # fmt: skip


def test_files_count_with_what_their_headers_say() -> None:
    sizes = Sizes.from_files(
        model_files(
            Component("transformer", "FluxTransformer2DModel", 12_000, 6_800, "uint8", (), "gguf Q4_0"),
            Component("text_encoder", "CLIPTextModel", 1_000, 2_000, "float16", ()),
            Component("vae", "AutoencoderTiny", 500, 1_000, "float16", ()),
            Component("scheduler", "FlowMatchEulerDiscreteScheduler", 0, 0, None, ()),
        )
    )
    assert [(one.name, one.role) for one in sizes.components] == [
        ("transformer", "denoiser"),
        ("text_encoder", "encoder"),
        ("vae", "vae"),
    ]
    held_as = {one.name: one.held_bytes(held(dtype="float32")) for one in sizes.components}
    assert held_as == {"transformer": 6_800, "text_encoder": 4_000, "vae": 2_000}


def test_plain_float8_of_a_single_file_counts_as_what_it_is_loaded_as() -> None:
    """The loader makes 16 bits of it; only then can it be quantised like any other."""
    file = Component("transformer", "FluxTransformer2DModel", 12_000_000, 12_000_000, "float8_e4m3fn", (), "float8")
    (one,) = Sizes.from_files(model_files(file)).components
    assert one.held_bytes(held()) == 24_000_000 and one.held_bytes(held("denoiser_int8")) < 13_000_000


def test_what_works_beside_the_denoiser_counts() -> None:
    sizes = Sizes.published(FAMILIES["sdxl"])
    with_controlnet = sizes.beside("controlnet", 1_250_000_000)
    for techniques, stages in (((), ("encode", "denoise", "decode")), (("staged",), ("denoise",))):
        without, beside = (
            estimate(one, held(*techniques), native("sdxl"), "cuda").stage_bytes for one in (sizes, with_controlnet)
        )
        for stage in stages:
            assert beside[stage] - without[stage] == 2_500_000_000


def loading(*techniques: str, dtype: Any = "bfloat16", file_dtype: str | None = None, device: str = "cuda") -> float:
    """GiB of SDXL (encoders 0.818, denoiser 2.567, VAE 0.084 billion) while it is loaded."""
    sizes = Sizes.published(FAMILIES["sdxl"])
    sizes = replace(sizes, components=tuple(replace(one, file_dtype=file_dtype) for one in sizes.components))
    return estimate(sizes, held(*techniques, dtype=dtype), native("sdxl"), device).loading_bytes / GIB


def test_what_lies_in_its_file_as_it_is_used_needs_no_memory_to_be_loaded() -> None:
    assert loading() == loading(file_dtype="bfloat16") == loading("staged", "drop_encoders") == 0


def test_what_is_converted_is_there_as_it_will_be_used() -> None:
    assert loading(file_dtype="float16") == pytest.approx(6.46, rel=0.01)
    assert loading(dtype="float32", device="cpu") == pytest.approx(12.9, rel=0.01)


def test_what_is_quantised_is_there_in_full_before_unless_it_is_mapped() -> None:
    both = ("denoiser_int8", "encoder_int8")
    assert loading(*both) == pytest.approx(0.87 + 2.56, rel=0.05), "the 8 bits alone"
    assert loading(*both, file_dtype="float32") == pytest.approx(0.87 + 4.78, rel=0.03)
    fp8 = loading("fp8_storage", file_dtype="float32")
    assert fp8 == pytest.approx(6.46, rel=0.01), "which comes when all components are there"


def test_what_is_streamed_from_disk_goes_there_in_pieces() -> None:
    on_disk = loading("leaf_offload", "disk_offload", dtype="float32", device="cpu")
    assert on_disk == pytest.approx(0.31, rel=0.02), "the VAE"


def test_on_a_cpu_the_peak_may_be_that_of_loading() -> None:
    """Of 16 bits in memory, 32 were there before; a small picture needs less than that."""
    memory, small = held("denoiser_int8", dtype="float32"), Shape(64, 64)
    found = estimate(Sizes.published(FAMILIES["sdxl"]), memory, small, "cpu")
    assert found.peak_bytes == found.loading_bytes + OVERHEAD["cpu"] > max(found.stage_bytes.values()) + 2 * GIB
    on_gpu = estimate(Sizes.published(FAMILIES["sdxl"]), memory, small, "cuda")
    assert on_gpu.peak_bytes == max(on_gpu.stage_bytes.values()) + OVERHEAD["cuda"]
    assert on_gpu.host_bytes == on_gpu.loading_bytes + 1.5 * GIB


def with_lora(numbers: int, idle: int = 0) -> Sizes:
    sizes = Sizes.published(FAMILIES["sdxl"])
    denoiser = sizes.largest("denoiser")
    changed = (replace(one, added=numbers, idle=idle) if one is denoiser else one for one in sizes.components)
    return replace(sizes, components=tuple(changed))


def test_loras_add_to_the_denoiser_and_are_never_quantised() -> None:
    """Half a gigabyte of weights, and a quarter more working memory."""
    for techniques in ((), ("staged",), ("staged", "denoiser_int8")):
        without, beside = (
            estimate(one, held(*techniques), native("sdxl"), "cuda").stage_bytes
            for one in (with_lora(0), with_lora(2**28))
        )
        working = (
            without["denoise"] - estimate(with_lora(0), held(*techniques), Shape(8, 8), "cuda").stage_bytes["denoise"]
        )
        assert beside["denoise"] - without["denoise"] == pytest.approx(2**29 + 0.26 * working, rel=0.02)
        assert (beside["decode"] == without["decode"]) is ("staged" in techniques)


def test_loras_stream_with_the_denoiser() -> None:
    without, beside = (
        estimate(one, held("leaf_offload"), native("sdxl"), "cuda").stage_bytes["denoise"]
        for one in (with_lora(0), with_lora(2**28))
    )
    assert beside - without < 2**29 / 4


def test_what_stays_of_loras_that_are_switched_off_is_bounded() -> None:
    peaks = [
        estimate(with_lora(0, idle), held(), native("sdxl"), "cuda").peak_bytes for idle in (0, 2**26, 2**28, 2**34)
    ]
    assert [peak - peaks[0] for peak in peaks] == [0, 2**27, IDLE_LORA_BYTES, IDLE_LORA_BYTES]


def test_a_controlnet_is_on_the_device_beside_the_only_component() -> None:
    sizes = Sizes.published(FAMILIES["sdxl"])
    without, beside = (
        estimate(one, held("model_offload"), native("sdxl"), "cuda").stage_bytes["denoise"]
        for one in (sizes, sizes.beside("controlnet", 1_250_000_000))
    )
    assert beside - without == 2_500_000_000


def test_a_picture_to_start_from_is_encoded_while_the_denoiser_is_there() -> None:
    sizes = Sizes.published(FAMILIES["sdxl"])
    plain, started = (
        estimate(one, held("staged"), native("sdxl"), "cuda").stage_bytes
        for one in (sizes, replace(sizes, encodes_pictures=True))
    )
    encoding = 1024 * 1024 * 2 * 1100  # InvokeAI
    assert started["denoise"] == pytest.approx((2.567e9 + 0.084e9) * 2 + encoding, rel=0.01)
    assert started["encode"] == plain["encode"] and started["decode"] == plain["decode"]


def test_small_models_are_estimated_small() -> None:
    """A tiny model of a known architecture must not be refused for the working memory of the large one."""
    tiny = Sizes(
        "flux",
        (
            ComponentSize("transformer", "denoiser", 100_000, "flux"),
            ComponentSize("text_encoder", "encoder", 50_000, "flux"),
            ComponentSize("vae", "vae", 20_000, "flux"),
        ),
    )
    found = estimate(tiny, held(), Shape(64, 64), "cuda")
    allocated = max(found.stage_bytes.values())
    assert allocated < 50 * 2**20 and found.peak_bytes == allocated + OVERHEAD["cuda"]


@pytest.mark.parametrize("kind", ["int8", "float8", "int4"])
def test_a_layer_that_is_stored_smaller_has_its_full_size_while_it_computes(kind: str) -> None:
    plain, stored = predict("flux", "staged"), predict("flux", "staged", f"denoiser_{kind}")
    working, more = (
        one.stage_bytes["denoise"] - weights("flux", *on)["transformer"] * GIB
        for one, on in ((plain, ()), (stored, (f"denoiser_{kind}",)))
    )
    assert more - working == pytest.approx(18432 * 3072 * 2, rel=0.02)  # the largest: a block's modulation
