"""Templates: what they stand for, that text around them survives, and agreement with dynamicprompts."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jobs.config.sections import Variants
from jobs.prompts.templates import Wildcards
from jobs.prompts.variants import VariantTexts, count_of, text_at
from pipeline.errors import PromptFileError


@pytest.fixture
def wildcards(tmp_path: Path) -> Wildcards:
    (tmp_path / "colour.txt").write_text("# colours\nred\n\n  blue  \n3::light {green|grey}\n")
    (tmp_path / "beach").mkdir()
    (tmp_path / "beach" / "sky.txt").write_text("a __colour__ sky\n")
    return Wildcards([tmp_path])


def everything(template: str, wildcards: Wildcards | None = None) -> list[str]:
    node = (wildcards or Wildcards()).parse(template)
    return [text_at(node, index) for index in range(count_of(node))]


def drawn(template: str, count: int, prompt_seed: int = 0, wildcards: Wildcards | None = None) -> list[str]:
    node = (wildcards or Wildcards()).parse(template)
    return list(VariantTexts(template, node, Variants(count=count, prompt_seed=prompt_seed)))


def fault_of(template: str, wildcards: Wildcards | None = None) -> str:
    with pytest.raises(ValueError) as caught:
        (wildcards or Wildcards()).parse(template)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "a red house",
        "  two  spaces \t and a tab\nand a line ",
        "# no comment, #ff0000, // nor this /* or this */",
        "(a:1.2) [b] ((c)) 'd' \"e\" \\f \\(g\\) h|i 100% $5 $$ 2::x",
        "<lora:foo_bar:0.8> <lora:foo__bar__baz:1> x__y ____ _a_",
        "${name} ${oc.env:HF_TOKEN} ${a:b|c}",
        "Steps: 20, Sampler: Euler\nNegative prompt: x",
        "👩‍🚀 \u202egnirts 雪",
    ],
)
def test_a_prompt_without_template_syntax_is_untouched(text: str) -> None:
    assert Wildcards().parse(text) == text


@pytest.mark.parametrize(
    ("template", "texts"),
    [
        ("a {red|blue} house", ["a red house", "a blue house"]),
        ("{a|b}{1|2}", ["a1", "a2", "b1", "b2"]),
        ("{a|{b|c} d}", ["a", "b d", "c d"]),
        ("{very |}old", ["very old", "old"]),
        ("{ a|b }", [" a", "b "]),
        ("{2$$a|b|c}", ["a,b", "a,c", "b,a", "b,c", "c,a", "c,b"]),
        ("{2$$ and $$a|b}", ["a and b", "b and a"]),
        ("{2$$、$$a|b}", ["a、b", "b、a"]),
        ("{1-2$$+$$a|b}", ["a", "b", "a+b", "b+a"]),
        ("{-2$$+$$a|b}", ["a", "b", "a+b", "b+a"]),
        ("{2-$$+$$a|b}", ["a+b", "b+a"]),
        ("{0-1$$a}x", ["x", "ax"]),
        ("{2$$+$$a|}", ["a", "a"]),
        ("{5::a|0.5::b}", ["a", "b"]),
        ("(x:1.2) #{a|b} // 100% [y]", ["(x:1.2) #a // 100% [y]", "(x:1.2) #b // 100% [y]"]),
        ("${x} {a|b} $5", ["${x} a $5", "${x} b $5"]),
        (r"\{a|b\} {c\|d|e} \__f__ \n", [r"{a|b} c|d __f__ \n", r"{a|b} e __f__ \n"]),
        ("{only}", ["only"]),
    ],
)
def test_a_template_stands_for_its_combinations(template: str, texts: list[str]) -> None:
    assert everything(template) == texts


def test_wildcards_are_lines_of_files(wildcards: Wildcards) -> None:
    assert everything("__colour__ house", wildcards) == [
        "red house",
        "blue house",
        "light green house",
        "light grey house",
    ]
    assert everything("__beach/sky__!", wildcards)[0] == "a red sky!"
    assert everything("{2$$ or $$__colour__}", wildcards)[:2] == ["red or blue", "red or light green"]
    assert everything("pale__colour__ish", wildcards)[0] == "paleredish"


def test_a_users_wildcard_replaces_the_shipped_one(tmp_path: Path) -> None:
    for folder, colour in (("ours", "red"), ("theirs", "crimson")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "colour.txt").write_text(colour)
    assert everything("__colour__", Wildcards([tmp_path / "ours", tmp_path / "theirs"])) == ["crimson"]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("a {red|blue", "'{' at character 3 is never closed"),
        ("a {red|{blue}", "'{' at character 3 is never closed"),
        ("a red} house", "'}' at character 6 has no '{' before it"),
        ("a {} house", "the braces at character 3 are empty"),
        ("{3$$a|b}", "the braces at character 1 ask for 3 to 3 of 2 options"),
        ("{0$$a|b}", "the braces at character 1 ask for 0 to 0 of 2 options"),
        ("{0::a|b}", "weight 0:: must be above 0"),
        ("{" * 40 + "a" + "}" * 40, "nested more than 32 deep"),
        ("a __colours__ house", "unknown wildcard __colours__; did you mean __colour__?"),
        ("__zzz__", "unknown wildcard __zzz__; known are __beach/sky__, __colour__"),
    ],
)
def test_a_bad_template_is_explained(wildcards: Wildcards, template: str, expected: str) -> None:
    assert expected in fault_of(template, wildcards)


def test_a_wildcard_that_leads_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x __b__\n")
    (tmp_path / "b.txt").write_text("y\nz __a__\n")
    with pytest.raises(PromptFileError, match=r"b.txt:2: wildcard __a__ leads back to itself: a -> b -> a"):
        Wildcards([tmp_path]).parse("__a__")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"# none\n", "holds no values"),
        (b"r\xf6d\n", "is not UTF-8"),
        (b"ok\na\0b\n", "colour.txt:2: holds U\\+0000"),
        (b"ok\n\n{a|\n", "colour.txt:3: '{' at character 1 is never closed"),
    ],
)
def test_a_bad_wildcard_file_is_named(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "colour.txt").write_bytes(content)
    with pytest.raises(PromptFileError, match=expected):
        Wildcards([tmp_path]).parse("a __colour__ house")


def test_random_texts_depend_on_nothing_but_seed_template_and_number(wildcards: Wildcards) -> None:
    template = "a __colour__ {house|boat|tree|tower} in {hills|sea|forest}"
    first = drawn(template, 20, wildcards=wildcards)
    assert drawn(template, 50, wildcards=wildcards)[:20] == first
    assert drawn(template, 20, prompt_seed=1, wildcards=wildcards) != first
    assert set(first) <= set(everything(template, wildcards))
    assert len(set(first)) > 10


def test_random_texts_are_the_same_in_another_process() -> None:
    code = (
        "from jobs.config.sections import Variants; from jobs.prompts.variants import VariantTexts;"
        "from jobs.prompts.templates import Wildcards;"
        "t = '{a|b|c|d}{2$$e|f|g}'; print(*VariantTexts(t, Wildcards().parse(t), Variants(count=9)))"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert shown == {" ".join(drawn("{a|b|c|d}{2$$e|f|g}", 9)) + "\n"}
    assert shown == {"be,f dg,f de,f bf,e ce,f bg,f ce,f af,e dg,f\n"}  # pinned: others would be other images


def test_weights_guide_random_texts() -> None:
    counts = Counter(drawn("{9::often|rare}", 300))
    assert counts["often"] > 230


def test_texts_in_step_take_turns() -> None:
    node = Wildcards().parse("{a|b|c} {x|y}")
    assert list(VariantTexts("", node, Variants(mode="cyclic", count=4))) == ["a x", "b y", "c x", "a y"]


def test_a_count_limits_combinations() -> None:
    node = Wildcards().parse("{a|b|c}{x|y}")
    assert len(VariantTexts("", node, Variants(mode="combinatorial"))) == 6
    assert list(VariantTexts("", node, Variants(mode="combinatorial", count=2))) == ["ax", "ay"]
    assert len(VariantTexts("", node, Variants(mode="combinatorial", count=99))) == 6
    assert len(VariantTexts("", node, Variants())) == 1


def test_too_many_combinations_are_refused_before_one_is_made() -> None:
    node = Wildcards().parse("{a|b|c|d|e|f|g|h|i|j}" * 100)
    with pytest.raises(ValueError, match=r"more than 10,000,000; set prompts\.variants\.count"):
        VariantTexts("", node, Variants(mode="combinatorial"))
    limited = VariantTexts("", node, Variants(mode="combinatorial", count=1000))
    assert limited[999] == "a" * 97 + "jjj"


@pytest.mark.parametrize("piece", ["__a-", "__", "{2$$", "${", "|", "\\{", "{a|b}", "__a__ "])
def test_a_hostile_prompt_of_100_kb_is_read_or_refused_with_its_place(piece: str) -> None:
    """A pattern that backtracks would not come back from these at all."""
    text = "{a|b}" + piece * (100_000 // len(piece))
    try:
        assert Wildcards().parse(text) != text
    except ValueError as error:
        assert str(error)


words = st.text("abc ", min_size=1, max_size=4)
templates = st.recursive(
    words,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3, unique=True).map(lambda options: "{" + "|".join(options) + "}"),
        st.lists(words.map(str.strip).filter(bool), min_size=3, max_size=3, unique=True).map(
            lambda options: "{2$$+$$" + "|".join(options) + "}"
        ),
    ),
    max_leaves=8,
)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the library's parser uses old names of pyparsing
@given(templates)
def test_combinations_are_those_of_dynamicprompts(template: str) -> None:
    from dynamicprompts.generators import CombinatorialPromptGenerator

    squashed = [" ".join(text.split()) for text in everything(template)]
    assume(len(squashed) <= 2000)
    theirs = CombinatorialPromptGenerator(ignore_whitespace=True).generate(template, 2000)
    # The library drops white space before an option and equal results; the texts and their order are the same.
    assert {text.replace(" ", "") for text in squashed} == {text.replace(" ", "") for text in theirs}


@given(templates)
def test_random_texts_are_among_the_combinations(template: str) -> None:
    assert set(drawn(template, 5)) <= set(everything(template))
