"""How models want to be spoken to, by what is known of them."""

from __future__ import annotations

import pytest

from pipeline.registry.conventions import Convention, convention_by
from pipeline.registry.records import ModelCard


def of(card: ModelCard, family: str | None = "sdxl", name: str = "") -> Convention:
    return convention_by(family, (card.base_model,), card, name)


@pytest.mark.parametrize(
    ("base", "convention"),
    [
        ("Pony", "pony"), ("ponyDiffusionV6XL_v6StartWithThisOne", "pony"), ("Illustrious", "booru"),
        ("NoobAI", "booru"), ("noobaiXLNAIXL_vPred10", "booru"), ("cagliostrolab/animagine-xl-4.0", "booru"),
        ("SDXL 1.0", "plain"), ("SD 1.5", "plain"), ("sdxl_base_v1-0", "plain"), ("SDXL Lightning", "plain"),
        ("ponytails of Susana, monochrome", "plain"), ("", "plain"),
    ],
)  # fmt: skip
def test_the_name_of_the_base_tells(base: str, convention: Convention) -> None:
    assert of(ModelCard(base_model=base)) == convention


@pytest.mark.parametrize("base", ["Flux.1 D", "SD 3.5 Large", "Qwen", "ZImageTurbo", "Chroma", "Lumina"])
def test_a_base_with_prose_counts_only_where_the_tensors_do_not_tell_otherwise(base: str) -> None:
    assert of(ModelCard(base_model=base), family=None) == "prose"
    assert of(ModelCard(base_model=base), family="sdxl") == "plain"


@pytest.mark.parametrize(
    "family", ["flux", "sd3", "qwen_image", "z_image", "sana", "pixart_sigma", "lumina2", "chroma"]
)
def test_families_with_large_encoders_read_prose_whatever_the_card_says(family: str) -> None:
    assert of(ModelCard(base_model="Pony", trigger_words=("score_9",)), family) == "prose"


TABLES: dict[str, tuple[tuple[tuple[str, int], ...], Convention]] = {
    "scores": ((("a horse", 50), ("Score_9", 10)), "pony"),
    "booru": ((("1girl", 90), ("solo", 80)), "booru"),
    "seldom": ((("a photo of a street", 500), ("1girl", 3)), "plain"),
    "underscores": (tuple((f"long_{word}", 5) for word in ("hair", "sleeves", "skirt", "coat", "tail")), "booru"),
    "captions": ((("a photo of a street in the rain", 40), ("neon sign", 20)), "plain"),
}


@pytest.mark.parametrize("case", TABLES)
def test_the_training_table_tells_where_the_base_does_not(case: str) -> None:
    counts, convention = TABLES[case]
    assert of(ModelCard(base_model="sdxl_base_v1-0", tag_counts=counts)) == convention


def test_triggers_and_the_habit_of_example_prompts_tell() -> None:
    assert of(ModelCard(trigger_words=("ink", "score_9, score_8_up"))) == "pony"
    assert of(ModelCard(example_prompts=("masterpiece, a heron", "a boat", "1girl, rain"))) == "booru"
    assert of(ModelCard(example_prompts=("score_9, a heron", "a boat", "rain"))) == "plain"


def test_the_base_comes_before_triggers_and_marks_before_names() -> None:
    assert of(ModelCard(base_model="Illustrious", trigger_words=("score_9",))) == "booru"
    assert of(ModelCard(v_prediction=True)) == "booru"
    assert of(ModelCard(v_prediction=True), family="sd15") == "plain"
    assert of(ModelCard(), name="realPonyXL") == "pony"
    assert of(ModelCard(example_prompts=("1girl, rain",)), name="realPonyXL") == "booru"
    assert of(ModelCard(), name="fluxXL") == "plain"
