"""What the registry and the profiles have is what can be chosen, with its cards, under the names that override."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.made_registry import Made, made_prompts, write_made
from pipeline.prompting.rules import analyse
from pipeline.registry.database import Registry
from pipeline.registry.records import ModelCard, StoredKind, StoredModel
from pipeline.registry.storing import add
from pipeline.selection.candidates import ModelCandidate, Offers
from pipeline.selection.choose import choose
from pipeline.selection.offered import Profile, offers_of
from pipeline.selection.wishes import Wishes


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "home"))
    with Registry() as opened:
        yield opened


def put(registry: Registry, path: Path, kind: StoredKind = "checkpoint", **values: object) -> StoredModel:
    """A model in the registry, with a file that is there."""
    path.touch()
    card = values.pop("card", ModelCard())
    said = {"name": path.stem, "source": "local", "reference": str(path), "family": "sdxl", "bytes": 1, **values}
    return add(registry, StoredModel(kind=kind, path=path, **said), [], card)  # type: ignore[arg-type]


def offered(registry: Registry | None, *profiles: Profile) -> Offers:
    return offers_of(registry, profiles, read=analyse)


def named(offers: Offers, name: str) -> ModelCandidate:
    (found,) = [one for one in offers.models if one.name == name]
    return found


def test_without_registry_and_profiles_there_is_the_demo_model() -> None:
    offers = offered(None)
    assert [(one.name, one.override, one.convention) for one in offers.models] == [("demo", "model=demo", "closed")]
    assert choose("a dog", analyse("a dog"), offers, Wishes(licence="commercial")).model.chosen == "demo"


def test_a_profile_and_its_model_in_the_registry_are_one_with_the_card_of_both(
    registry: Registry, tmp_path: Path
) -> None:
    stored = put(registry, tmp_path / "weights.safetensors", bytes=7, card=ModelCard(tags=("anime",)), licence="mit")
    offers = offered(registry, Profile("sdxl", stored.reference, "sdxl", is_distilled=True), Profile("demo", "demo"))
    profile = named(offers, "sdxl")
    assert (profile.source, profile.override, profile.card.tags) == ("profile", "model=sdxl", ("anime",))
    assert (profile.bytes, profile.licence, profile.is_distilled) == (7, "mit", True)
    assert sorted(one.name for one in offers.models) == ["demo", "sdxl"]


def test_what_is_gone_is_incomplete_and_gone_loras_are_not_offered(registry: Registry, tmp_path: Path) -> None:
    put(registry, tmp_path / "here.safetensors")
    put(registry, tmp_path / "gone.safetensors")
    put(registry, tmp_path / "lora.safetensors", "lora")
    put(registry, tmp_path / "old.safetensors", "lora")
    put(registry, tmp_path / "vae.safetensors", "vae")
    for name in ("gone", "old"):
        (tmp_path / f"{name}.safetensors").unlink()
    offers = offered(registry)
    assert {one.name: one.complete for one in offers.models if not one.is_demo} == {"here": True, "gone": False}
    assert [one.name for one in offers.loras] == ["lora"]
    assert [one.name for one in offers.vaes] == ["vae"]


@pytest.mark.parametrize(
    ("name", "override"),
    [
        ("plain-name_v2", "model=custom model.source=plain-name_v2"),
        ("My model (1)", "model=custom 'model.source=\"My model (1)\"'"),
    ],
)
def test_the_key_that_overrides_is_a_name_and_no_path(
    registry: Registry, tmp_path: Path, name: str, override: str
) -> None:
    put(registry, tmp_path / f"{name}.safetensors")
    assert named(offered(registry), name).override == override


def test_of_two_models_of_one_name_the_hubs_reference_overrides(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    put(registry, tmp_path / "same.safetensors")
    put(registry, tmp_path / "other" / "same.safetensors", source="civitai", reference="civitai:123")
    overrides = {one.override for one in offered(registry).models}
    assert "model=custom model.source=civitai:123" in overrides


def test_words_of_the_registry_stand_in_where_the_card_is_silent(registry: Registry, tmp_path: Path) -> None:
    put(registry, tmp_path / "x.safetensors", "lora", base_model="Pony", tags=("anime",), trigger_words=("zorvex",))
    (lora,) = offered(registry).loras
    assert (lora.card.base_model, lora.convention) == ("Pony", "pony")
    assert (lora.card.tags, lora.card.trigger_words) == (("anime",), ("zorvex",))


@pytest.mark.parametrize("name", ["dreamXL_lightning", "sdxl-turbo", "Hyper_model"])
def test_models_of_a_few_steps_are_told_by_their_names(registry: Registry, tmp_path: Path, name: str) -> None:
    put(registry, tmp_path / f"{name}.safetensors")
    put(registry, tmp_path / "hyperrealistic.safetensors")
    offers = offered(registry)
    assert named(offers, name).is_distilled
    assert not named(offers, "hyperrealistic").is_distilled


@pytest.mark.slow
def test_the_made_registry_on_disk_gives_the_choices_that_it_gives_in_memory(
    registry: Registry, tmp_path: Path, made: Made, made_offers: Offers
) -> None:
    write_made(made, registry, tmp_path)
    stored = offered(registry)
    for prompt in made_prompts()[::5]:
        analysis = analyse(prompt.text)
        one = choose(prompt.text, analysis, made_offers, Wishes())
        other = choose(prompt.text, analysis, stored, Wishes())
        assert (one.model.chosen, one.model.score) == (other.model.chosen, other.model.score)
        assert [lora.chosen for lora in one.loras] == [lora.chosen for lora in other.loras]
