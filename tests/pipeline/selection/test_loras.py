"""LoRAs come for a reason, fit the model, and keep within their limits; tags in prompts are obeyed or explained."""

from __future__ import annotations

import pytest
from made_candidates import ANIME, GENERAL, PHOTO, chosen, lora, model, offered

from pipeline.registry.records import ModelCard
from pipeline.selection.candidates import LoraCandidate
from pipeline.selection.choice import Choice
from pipeline.selection.wishes import Wishes

BASE = model("base", GENERAL)


def style(name: str, look: str, base: str = "SDXL 1.0", **card: object) -> LoraCandidate:
    """A LoRA that was trained on a look, and says so."""
    said = {"tags": ("style", look), "tag_counts": ((look, 90), ("solo", 40)), "description": look, "base_model": base}
    return lora(name, ModelCard(**(said | card)))  # type: ignore[arg-type]


def names(choice: Choice) -> list[str]:
    return [one.chosen for one in choice.loras]


def test_a_style_that_the_prompt_asks_for_is_added_with_its_trigger() -> None:
    these = offered([BASE], [style("papers", "papercraft", trigger_words=("zorvex", "zorvexb"))])
    (one,) = chosen("a papercraft of a dog", these).loras
    assert (one.chosen, one.weight, one.triggers, one.source) == ("papers", 0.8, ("zorvex",), "rule")
    assert chosen("a zorvexb papercraft of a dog", these).loras[0].triggers == ()
    assert not chosen("a photo of a dog", these).loras


def test_popularity_alone_is_no_reason() -> None:
    detail = lora("detail_slider", ModelCard(tags=("slider",), description="Detail.", thumbs_up=10**6))
    assert not chosen("a dog on the beach", offered([BASE], [detail])).loras


def test_a_meaning_that_is_near_adds_no_lora_without_a_word_in_common() -> None:
    faces = lora("faces", ModelCard(tags=("people",), description="Faces of people.", tag_counts=(("man", 60),)))
    lamps = lora(
        "lamps", ModelCard(tags=("objects", "gondola"), description="A gondola.", tag_counts=(("gondola", 60),))
    )
    these = offered([BASE], [faces, lamps])
    near = {"/loras/faces": 0.7, "/loras/lamps": 0.7}
    assert not chosen("a woman in a garden", these, similarity=near).loras
    assert names(chosen("a gondola in a garden", these, similarity=near)) == ["lamps"]


def test_a_name_alone_is_no_reason() -> None:
    assert not chosen("a papercraft of a dog", offered([BASE], [lora("papercraft_style_xl")])).loras


def test_a_rare_trigger_names_its_lora_and_an_ordinary_word_does_not() -> None:
    these = offered(
        [BASE],
        [
            lora("ann", ModelCard(tags=("character",), trigger_words=("zorvex",), description="A character.")),
            lora("bob", ModelCard(tags=("character",), trigger_words=("knight",), description="A character.")),
        ],
    )
    assert names(chosen("zorvex the knight on a horse", these)) == ["ann"]
    assert chosen("zorvex the knight on a horse", these).loras[0].weight == 0.9
    assert not names(chosen("a knight on a horse", these))


def test_a_trigger_that_many_share_names_none_of_them() -> None:
    card = ModelCard(tags=("character",), trigger_words=("zorvex",), description="A character.")
    many = [lora(f"number {number}", card, sha256=f"{number:064}") for number in range(8)]
    assert not chosen("zorvex on a horse", offered([BASE], many)).loras


def test_at_most_one_of_an_axis_and_three_in_all() -> None:
    loras = [
        style("papers", "papercraft"),
        style("papers two", "papercraft", thumbs_up=900),
        *(lora(name, ModelCard(tags=(tag,), trigger_words=(name,), description="It.")) for name, tag in (
            ("zorvex", "character"), ("morquib", "character"), ("belnaxo", "concept"), ("wendruz", "slider"))),
    ]  # fmt: skip
    these = offered([BASE], loras)
    prompt = "a papercraft of zorvex and morquib with belnaxo and wendruz"
    choice = chosen(prompt, these)
    assert len(choice.loras) == 3
    assert len({"papers", "papers two"} & set(names(choice))) <= 1
    assert len({"zorvex", "morquib"} & set(names(choice))) == 1
    assert len(chosen(prompt, these, Wishes(max_loras=1)).loras) == 1
    assert not chosen(prompt, these, Wishes(max_loras=0)).loras
    assert not chosen(prompt, these, Wishes(set_loras=False)).loras


def test_weights_are_the_authors_and_together_within_their_sum() -> None:
    one = lora("one", ModelCard(tags=("character",), trigger_words=("zorvex",), description="It.", weight=1.2))
    two = lora("two", ModelCard(tags=("concept",), trigger_words=("morquib",), description="It.",
                                weight_min=0.6, weight_max=1.0))  # fmt: skip
    these = offered([BASE], [one, two])
    assert chosen("zorvex", these).loras[0].weight == 1.2
    assert chosen("morquib", these).loras[0].weight == 0.8
    both = chosen("zorvex with morquib", these)
    assert sum(lora.weight for lora in both.loras) == pytest.approx(1.5, abs=0.002)
    assert both.loras[0].weight / both.loras[1].weight == pytest.approx(1.5, abs=0.01)
    assert "scaled down" in both.warnings[0]


@pytest.mark.parametrize("base", ["Pony", "Flux.1 D", "SD 1.5"])
def test_a_lora_of_another_base_is_never_applied(base: str) -> None:
    families = {"Pony": "sdxl", "Flux.1 D": "flux", "SD 1.5": "sd15"}
    card = ModelCard(tags=("style", "papercraft"), tag_counts=(("papercraft", 90),), trigger_words=("zorvex",),
                     description="Papercraft.", base_model=base)  # fmt: skip
    other = lora("papers", card, families[base])
    choice = chosen("a papercraft of zorvex <lora:papers:1>", offered([BASE], [other]))
    assert not choice.loras
    assert choice.excluded["LoRAs for other models"].examples == ("papers",)
    assert "is made for" in choice.warnings[0] and "papers" in choice.warnings[0]


def test_a_pony_model_takes_pony_loras_alone() -> None:
    pony = model("pony", ModelCard(description="General.", base_model="Pony"))
    these = offered([pony], [style("plain papers", "papercraft"), style("pony papers", "papercraft", "Pony")])
    assert names(chosen("a papercraft of a dog", these)) == ["pony papers"]


def test_score_tags_tell_a_pony_lora_where_no_base_is_named() -> None:
    told = lora("papers", ModelCard(tags=("style", "papercraft"), description="papercraft",
                                    tag_counts=(("papercraft", 90), ("score_9", 80))))  # fmt: skip
    assert told.convention == "pony"
    assert not chosen("a papercraft of a dog", offered([BASE], [told])).loras


def test_of_two_booru_bases_the_models_own_comes_first() -> None:
    model_of_noob = model("noob", ModelCard(description="General.", base_model="NoobAI"))
    these = offered([model_of_noob], [style("a", "papercraft", "Illustrious"), style("b", "papercraft", "NoobAI")])
    assert names(chosen("a papercraft of a dog", these)) == ["b"]


def test_a_model_that_has_the_look_needs_no_lora_for_it() -> None:
    drawn = model("drawn", ANIME)
    assert not chosen("a dog, anime", offered([drawn], [style("more anime", "anime")])).loras
    assert chosen("a dog, anime", offered([BASE], [style("more anime", "anime")])).loras


def test_a_lora_of_an_opposed_look_is_not_taken_for_another_reason() -> None:
    drawn = lora("neon", ModelCard(tags=("style", "anime", "cyberpunk"), description="Cyberpunk anime.",
                                   tag_counts=(("anime", 90), ("cyberpunk", 80))))  # fmt: skip
    real = lora("street", ModelCard(tags=("style", "cyberpunk"), description="Cyberpunk photos.",
                                    tag_counts=(("photo", 90), ("cyberpunk", 80))))  # fmt: skip
    assert names(chosen("a photo of a dog, cyberpunk", offered([model("camera", PHOTO)], [drawn, real]))) == ["street"]


def test_an_unknown_tag_is_one_line_with_the_nearest_names() -> None:
    these = offered([BASE], [lora("watercolour_wash"), lora("other")])
    choice = chosen("a dog <lora:watercolor_wash:0.8>, on grass", these)
    assert not choice.loras
    assert choice.warnings == ("<lora:watercolor_wash> is not known here: not applied; like it: watercolour_wash",)
    assert choice.prompt.text == "a dog, on grass"


@pytest.mark.parametrize("tag", ["<lora:Papers_XL:0.4>", "<lora:papers xl.safetensors:0.4>", "<LORA:papers-xl:0.4>"])
def test_names_in_tags_are_read_in_any_spelling(tag: str) -> None:
    choice = chosen(f"a dog {tag}", offered([BASE], [lora("papers_xl")]))
    assert [(one.chosen, one.weight) for one in choice.loras] == [("papers_xl", 0.4)]


def test_tags_without_a_sensible_weight_and_twice_the_same() -> None:
    these = offered([BASE], [lora("papers", ModelCard(weight=0.6))])
    assert len(chosen("<lora:papers:0.5> a dog <lora:papers:0.9>", these).loras) == 1
    assert not chosen("a <lora:papers dog", these).loras


def test_what_the_user_asked_for_is_not_scaled() -> None:
    loras = [lora("one"), style("papers", "papercraft")]
    choice = chosen("a papercraft of a dog <lora:one:1.4>", offered([BASE], loras))
    assert [(one.chosen, one.weight) for one in choice.loras] == [("one", 1.4), ("papers", 0.1)]
