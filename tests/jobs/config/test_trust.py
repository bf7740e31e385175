"""Configuration files that reach for more than their own group are refused before Hydra reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from jobs.config.batch_config import BatchConfig
from jobs.config.faults import section_model
from jobs.config.interpolations import check_interpolations
from jobs.config.trust import check_trust
from pipeline.errors import ConfigError, UntrustedConfig

ROOT = Path(__file__).parents[3]
CONF = ROOT / "conf"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    for group in ("prompts", "experiment", "hydra/launcher"):
        (folder / group).mkdir(parents=True)
    return folder


def check(folder: Path) -> None:
    check_trust([CONF, folder], CONF / "config.yaml")


def fault_of(folder: Path, content: str | bytes, option: str = "prompts/evil.yaml") -> str:
    (folder / option).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        check(folder)
    return caught.value.faults[0].removeprefix(f"{folder}/")


def test_our_own_configuration_is_trusted() -> None:
    check_trust([CONF], CONF / "config.yaml")


def test_ordinary_options_of_a_user_are_trusted(folder: Path) -> None:
    (folder / "prompts" / "mine.yaml").write_text(
        "name: mine\nlines: [hydra in the sea, '@package hydra', \"# @x y\"]\n"
    )
    (folder / "experiment" / "study.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /memory: aggressive\n  - override /prompts: mine\n"
        "  - _self_\nseeds: 3\ngrid: {sampling.steps: [1, 2]}\n"
    )
    check(folder)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("hydra: {callbacks: {x: 1}}\n", "evil.yaml:1: the key 'hydra' configures Hydra itself"),
        ("lines: [a]\n\n'hydra':\n  callbacks: {}\n", "evil.yaml:3: the key 'hydra' configures Hydra itself"),
        ('"\\x68ydra": {}\n', "evil.yaml:1: the key 'hydra' configures"),
        ("? hydra\n: {}\n", "evil.yaml:1: the key 'hydra' configures"),
        ("hydra.callbacks.x: {}\n", "evil.yaml:1: the key 'hydra.callbacks.x' configures"),
        ("a: &a {hydra: {callbacks: {}}}\n<<: *a\n", "evil.yaml:1: the key 'hydra' configures"),
        ("lines:\n  - text: a\n    x: {_target_: os.system}\n", "evil.yaml:3: the key '_target_' names code"),
        ("# @package _global_\nseeds: 1\n", "evil.yaml:1: the header `@package _global_` moves the file"),
        ("\ufeff# @package hydra.callbacks.x\na: 1\n", "evil.yaml:1: the header `@package hydra.callbacks.x`"),
        ("\n\n   #   @package   hydra\na: 1\n", "evil.yaml:3: the header `@package hydra`"),
        ("# x\n# @package _global_\na: 1\n", "evil.yaml:2: the header `@package _global_`"),
        (
            "defaults:\n  - override /hydra/launcher: evil\n",
            "evil.yaml:2: the defaults entry 'override /hydra/launcher'",
        ),
        ("defaults: [hydra/callbacks: x]\n", "the defaults entry 'hydra/callbacks' is not a plain group"),
        ("defaults: [/hydra/callbacks/x]\n", "the defaults entry '/hydra/callbacks/x' is not a plain group"),
        ("defaults: [/prompts@hydra.callbacks: x]\n", "the defaults entry '/prompts@hydra.callbacks' is not"),
        ("defaults: [/prompts: ../../../tmp/x]\n", "the defaults entry '/prompts' does not name an option"),
        ("defaults: [//tmp/x]\n", "the defaults entry '//tmp/x' is not a plain group"),
        ("a: &d {defaults: [/hydra/x]}\n<<: *d\n", "the defaults entry '/hydra/x' is not a plain group"),
        ("defaults: {steps: 3}\n", "the top-level key 'defaults' is Hydra's list of options"),
        ("a: !!python/object/apply:os.system [ls]\n", "evil.yaml:1: has the tag !!python/object/apply:os.system"),
        ("a: !!python/object/apply:pathlib.Path [x]\n", "evil.yaml:1: has the tag"),
        ("- a\n- b\n", "evil.yaml:1: is not a mapping of keys to values"),
        ("name: a\nname: b\n", "evil.yaml:2: the key 'name' is there twice"),
    ],
)
def test_an_option_that_reaches_for_more_is_refused(folder: Path, content: str, expected: str) -> None:
    fault = fault_of(folder, content)
    assert expected in fault
    assert fault.startswith("prompts/evil.yaml:")
    assert "prompts from strangers belong in a .txt, .csv or .jsonl file" in fault
    with pytest.raises(UntrustedConfig):
        check(folder)


@pytest.mark.parametrize("option", ["experiment/evil.yaml", "local/default.yaml", "on_end/evil.yaml"])
@pytest.mark.parametrize(
    "content",
    ["on_end: [sh, -c, ls]\n", "a: &a {on_end: [ls]}\n<<: *a\n", "' on_end ': null\n", '"\\x6fn_end": [ls]\n'],
)
def test_a_file_that_was_handed_on_names_no_program(folder: Path, option: str, content: str) -> None:
    (folder / option).parent.mkdir(exist_ok=True)
    content = f"# @package _global_\n{content}" if option != "on_end/evil.yaml" else content
    fault = fault_of(folder, content, option)
    assert "key 'on_end' names a program to be started, which is yours alone to say, in local/default.yaml" in fault
    with pytest.raises(UntrustedConfig):
        check(folder)


def test_ones_own_local_file_may_name_a_program(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    for group in ("local", "experiment"):
        (conf / group).mkdir(parents=True)
        (conf / group / "default.yaml").write_text("# @package _global_\non_end: [notify, done]\n")
    with pytest.raises(UntrustedConfig) as caught:
        check_trust([conf], conf / "config.yaml")
    assert len(caught.value.faults) == 1 and caught.value.faults[0].startswith(f"{conf}/experiment/default.yaml:2: ")

    (conf / "experiment" / "default.yaml").unlink()
    with pytest.raises(UntrustedConfig):  # of --config-dir
        check_trust([CONF, conf], CONF / "config.yaml")
    check_trust([CONF, conf], CONF / "config.yaml", [CONF, conf])  # of the user's own folder


@pytest.mark.parametrize(
    ("option", "content", "expected"),
    [
        ("experiment/evil.yaml", "# @package hydra\na: 1\n", "the header `@package hydra` moves the file"),
        ("experiment/evil.yaml", "# @package _global_\nhydra: {mode: MULTIRUN}\n", "the key 'hydra' configures"),
        ("prompts/evil.yml", "hydra: {}\n", "the key 'hydra' configures"),
        ("prompts/EVIL.YAML", "hydra: {}\n", "the key 'hydra' configures"),
        ("evil.yaml", "hydra: {}\n", "the key 'hydra' configures"),
        ("hydra/launcher/basic.yaml", "a: 1\n", "is an option of Hydra's own groups"),
    ],
)
def test_every_yaml_file_is_read(folder: Path, option: str, content: str, expected: str) -> None:
    assert expected in fault_of(folder, content, option)


def test_links_are_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "data.bin").write_text("hydra: {}\n")
    (tmp_path / "elsewhere" / "b.yaml").write_text("x: {_target_: a}\n")
    (folder / "prompts" / "a.yaml").symlink_to(tmp_path / "elsewhere" / "data.bin")
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UntrustedConfig) as caught:
        check(folder)
    assert [fault.split(":")[0].removeprefix(f"{folder}/") for fault in caught.value.faults] == [
        "more/b.yaml",
        "prompts/a.yaml",
    ]


@pytest.mark.parametrize(
    ("link", "target"),
    [("memory", "experiment"), ("prompts/more", "experiment"), ("prompts/round", ""), ("hydra/callbacks", "prompts")],
)
def test_a_link_gives_no_option_a_second_group(folder: Path, link: str, target: str) -> None:
    """`memory=study` would set keys of the whole batch, which only an experiment may."""
    (folder / "experiment" / "study.yaml").write_text("# @package _global_\nseeds: 3\n")
    check(folder)
    (folder / link).symlink_to(folder / target)
    with pytest.raises(UntrustedConfig, match="is the same folder as"):
        check(folder)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"name: a\nlines: [a, b\nx: 1\n", "evil.yaml:3:2: is not YAML: expected ',' or ']'"),
        (b"a: 1\n---\nb: 2\n", "evil.yaml:2:1: is not YAML: but found another document"),
        (b"name: \xff\n", "evil.yaml: is not UTF-8 (byte 6)"),
        (b"name: a\0b\n", "evil.yaml: is not YAML: unacceptable character #x0000"),
        (b"[" * 5000, "evil.yaml: is nested too deep for YAML"),
    ],
)
def test_broken_yaml_is_one_line_with_its_place(folder: Path, content: bytes, expected: str) -> None:
    assert expected in fault_of(folder, content)


def test_an_option_that_hydra_would_silently_ignore_is_named(folder: Path) -> None:
    fault = fault_of(folder, "lines: [mine]\n", "prompts/demo.yaml")
    expected = f"is never read, since {CONF}/prompts/demo.yaml has the same name and comes first; rename it"
    assert fault == f"prompts/demo.yaml: {expected}"


def test_the_same_folder_given_twice_is_no_fault() -> None:
    check_trust([CONF, CONF / ".." / "conf"], CONF / "config.yaml")


def test_all_faults_are_reported_at_once(folder: Path) -> None:
    (folder / "prompts" / "a.yaml").write_text("hydra: {}\nx: {_target_: y}\n")
    (folder / "prompts" / "b.yaml").write_text("[\n")
    with pytest.raises(UntrustedConfig) as caught:
        check(folder)
    assert len(caught.value.faults) == 3


def prompts_of(text: str, **others: Any) -> dict[str, Any]:
    return {"prompts": {"lines": ["fine", {"text": text}]}, "name": "study", **others}


@pytest.mark.parametrize(
    "text",
    [
        "a house",
        "${name}",
        "a ${.tags} and ${..suffix}",
        "${prompts.suffix} ${words[0]} ${missing}",
        r"\${oc.env:HF_TOKEN} is text",
        "$ {} $name {a|b}",
    ],
)
def test_plain_references_and_text_are_allowed(text: str) -> None:
    check_interpolations(prompts_of(text, words=["a", "b"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${oc.env:HF_TOKEN}", "uses ${oc.env:HF_TOKEN...}"),
        ("a ${ oc.env:HF_TOKEN, x} b", "uses ${ oc.env:HF_TOKEN"),
        ("${oc.decode:${oc.env:A}}", "only plain references"),
        ("${${resolver}:HF_TOKEN}", "only plain references"),
        ("${words.${name}}", "only plain references"),
        (r"\\${oc.env:HF_TOKEN}", "uses ${oc.env:HF_TOKEN"),
        ("${hydra:runtime.cwd}", "uses ${hydra:runtime.cwd"),
        ("${model.source}", "refers to model.source, which uses ${oc.env:HOME"),
        ("${model}", "refers to model.source, which uses"),
        ("${chain[1]}", "refers to chain[1], which refers to model.source, which uses"),
        ("${....model.source}", "refers to model.source"),
        ("${oc.env:HF_TOKEN", "only plain references"),
    ],
)
def test_the_environment_cannot_reach_a_prompt(text: str, expected: str) -> None:
    raw = prompts_of(
        text, model={"source": "${oc.env:HOME}/weights"}, chain=["x", "${model.source}"], resolver="oc.env"
    )
    with pytest.raises(UntrustedConfig) as caught:
        check_interpolations(raw)
    fault = caught.value.faults[0]
    assert fault.startswith("prompts.lines[1].text: ")
    assert expected in fault
    assert "HF_TOKEN" not in fault.partition("; write the text itself")[2]


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """All keys of a configuration that hold a value."""
    for name, field in model.model_fields.items():
        if section := section_model(field.annotation):
            yield from leaves(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def raw_of(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


PLACES = {"output.dir", "model.source", "model.vae", "model.config", "memory.tiny_vae", "init.image"}


def test_the_environment_reaches_nothing_but_places_and_the_way_to_the_hubs() -> None:
    for key in leaves(BatchConfig):
        for value in ("${oc.env:SECRET}", ["x", {"y": "${oc.env:SECRET}"}]):
            if isinstance(value, str) and (key in PLACES or key.startswith("hub.")):
                check_interpolations(raw_of(key, value))
                continue
            with pytest.raises(UntrustedConfig) as caught:
                check_interpolations(raw_of(key, value))
            assert caught.value.faults[0].startswith(key)


def test_adapters_may_lie_where_the_environment_says_but_are_not_called_so() -> None:
    adapter = {"source": "${oc.env:LORAS}/a", "image": "${oc.env:LORAS}/b.png", "encoder": "${oc.env:LORAS}/c"}
    check_interpolations({"adapters": {"ip_adapters": [adapter]}})
    with pytest.raises(UntrustedConfig, match=r"adapters\.loras\[0\]\.name: uses"):
        check_interpolations({"adapters": {"loras": [{**adapter, "name": "${oc.env:SECRET}"}]}})


@pytest.mark.parametrize("reference", ["${a.²}", "${a.٣}", "${a[1111111111111111111111]}", "${a." + "9" * 5000 + "}"])
def test_odd_digits_in_a_reference_are_left_to_hydra(reference: str) -> None:
    check_interpolations({"name": reference, "a": ["x"]})


def test_references_in_a_circle_end() -> None:
    check_interpolations({"prompts": {"prefix": "${name}"}, "name": "${prompts.prefix}"})


@pytest.mark.parametrize("reference", ["${x%d}", "${hub.x%d}", "${oc.select:hub.x%d}"])
def test_references_may_not_stand_for_billions_of_characters(reference: str) -> None:
    levels = {"x0": "a", **{f"x{n}": (reference % (n - 1)) * 10 for n in range(1, 10)}}
    with pytest.raises(ConfigError, match=r"x\d: refers to others .* more than 10,000 values") as caught:
        check_interpolations({"hub": levels} if "hub" in reference else levels)
    assert not isinstance(caught.value, UntrustedConfig)
    with pytest.raises(ConfigError, match="10,000,000 characters"):
        check_interpolations({"long": "a" * 100_000, "prompts": {"prefix": "${long}" * 200}})


def test_references_may_lead_to_what_many_others_share() -> None:
    lines = ["${prompts.style} ${prompts.place}"] * 20_000
    check_interpolations({"prompts": {"style": "a photo", "place": "in hills", "lines": lines, "again": "${.style}"}})


LEVELS = "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]\n" for n in range(1, 10))
BOMBS = {
    "lists": f"x0: &x0 [a]\n{LEVELS}",
    "merges": "a: &a {k: 1}\n" + "".join(f"b{n}: {{<<: [{', '.join(['*a'] * 999)}]}}\n" for n in range(20)),
    "itself": "x: &x [*x]\n",
}


@pytest.mark.parametrize("name", BOMBS)
def test_aliases_may_not_stand_for_billions_of_values(folder: Path, name: str) -> None:
    assert fault_of(folder, BOMBS[name]).startswith("prompts/evil.yaml:1: has aliases")


def test_aliases_may_save_writing(folder: Path) -> None:
    lines = "- {text: a, <<: *style}\n" * 1000
    (folder / "prompts" / "mine.yaml").write_text(f"style: &style {{negative_prompt: blurry}}\nlines:\n{lines}")
    check(folder)
