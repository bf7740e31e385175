"""A batch configuration is checked at one border, and everything wrong with it is said at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from jobs.config.batch_config import parse_configs
from jobs.config.composition import explain, known_overrides, user_folders
from jobs.config.values import parse_range
from jobs.planning.grid import Grid
from jobs.running.main import run, validate
from pipeline.errors import ConfigError

SOUND: dict[str, Any] = {"prompts": {"lines": ["a"]}, "model": {"source": "demo"}, "memory": {"level": "none"}}


def faults(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_configs([{**SOUND, **changes}])
    return list(caught.value.faults)


def test_a_sound_configuration_has_no_faults() -> None:
    (config,) = parse_configs([SOUND])
    assert (config.title, list(config.seeds), config.output.dir) == ("batch", [0], "outputs")


def test_all_faults_of_a_batch_are_reported_at_once() -> None:
    found = faults(sampling={"steps": 0, "stepz": 3}, memory={"level": "agressive"}, seeds=-1, promts=1)
    assert [line.split(":")[0] for line in found] == [
        "memory.level",
        "sampling.steps",
        "sampling.stepz",
        "seeds",
        "promts",
    ]


@pytest.mark.parametrize(
    ("changes", "key", "expected"),
    [
        ({"sampling": {"steps": 0}}, "sampling.steps", "must be a whole number from 1 to 1000 (got 0)"),
        ({"sampling": {"steps": "20"}}, "sampling.steps", "must be a whole number from 1 to 1000 (got '20')"),
        ({"sampling": {"steps": True}}, "sampling.steps", "must be a whole number"),
        ({"sampling": {"guidance_scale": -1}}, "sampling.guidance_scale", "must be a number from 0 to 100"),
        (
            {"sampling": {"guidance_scale": float("nan")}},
            "sampling.guidance_scale",
            "from 0 to 100 (got nan)",
        ),
        ({"sampling": {"width": 65}}, "sampling.width", "multiple of 8 pixels, for instance 64 or 72"),
        ({"sampling": {"height": 4104}}, "sampling.height", "must be a whole number from 16 to 4096"),
        ({"sampling": {"scheduler": "eulr"}}, "sampling.scheduler", "did you mean 'Euler'?"),
        ({"sampling": {"stepz": 3}}, "sampling.stepz", "unknown key; did you mean 'steps'?"),
        ({"seeds": 2**53}, "seeds", "2^53-1"),
        ({"seeds": []}, "seeds", "at least one seed"),
        ({"seeds": {"start": 3}}, "seeds", "needs start and count"),
        ({"seeds": "range(5, 5)"}, "seeds", "is empty"),
        ({"dry_run": "yes"}, "dry_run", "true, false or json"),
        ({"batch_size": 0}, "batch_size", "auto or a whole number"),
        ({"output": {"format": "jpg"}}, "output.format", "did you mean 'jpeg'?"),
        ({"prompts": {"lines": "a house"}}, "prompts.lines", "must be a list"),
        ({"prompts": {}}, "prompts", "needs lines: (a list of prompts), file:"),
        ({"prompts": {"lines": ["a"], "file": "b.txt"}}, "prompts", "has lines and file; only one"),
        ({"prompts": {"characters": {"attributes": {5: ["a"]}}}}, "prompts.characters.attributes", "must be text"),
        ({"model": {}}, "model.source", "is missing"),
        ({"name": 5}, "name", "must be text"),
        ({"metadata": {"quality": 101}}, "metadata.quality", "must be a whole number from 1 to 100"),
    ],
)
def test_a_fault_names_key_value_and_expectation(changes: dict[str, Any], key: str, expected: str) -> None:
    (line,) = faults(**changes)
    assert line.startswith(f"{key}: ")
    assert expected in line


def test_what_holds_for_a_whole_run_may_not_be_swept() -> None:
    with pytest.raises(ConfigError, match="output: differs within the sweep"):
        parse_configs([SOUND, {**SOUND, "output": {"dir": "elsewhere"}}])


def test_a_fault_shared_by_a_sweep_is_said_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_configs([{**SOUND, "sampling": {"steps": 0}}] * 6)
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("range(0, 4)", [0, 1, 2, 3]),
        ("range(5, 30, 10)", [5, 15, 25]),
        ("range(3, 0, -1)", [3, 2, 1]),
        ("range(0.0, 1.0, 0.25)", [0.0, 0.25, 0.5, 0.75]),
    ],
)
def test_ranges_leave_out_their_stop(text: str, values: list[float]) -> None:
    assert parse_range(text) == pytest.approx(values)


def test_a_range_in_tenths_has_ten_values() -> None:
    assert len(parse_range("range(0.0, 1.0, 0.1)") or ()) == 10


def test_what_is_no_range_is_left_to_others() -> None:
    assert parse_range("seven") is None


NO_OPTION = """In 'config': Could not find 'memory/agressive'

Available options in 'memory':
\taggressive
\tnone
Config search path:
\tprovider=hydra, path=pkg://hydra.conf
"""


def test_an_unknown_option_is_one_line_with_the_nearest() -> None:
    assert explain(NO_OPTION) == "memory=agressive: no such option; did you mean 'aggressive'?"


def test_an_unknown_key_on_the_command_line_is_one_line_with_the_nearest() -> None:
    message = "Could not override 'sampling.stepz'.\nTo append to your config use +sampling.stepz=3\n"
    assert explain(message) == "sampling.stepz: unknown key; did you mean 'steps'?"


@pytest.mark.parametrize(
    "words", [["--config-dir", "mine"], ["--config-dir=mine"], ["-cd", "mine"], ["--config-d=mine"]]
)
def test_every_spelling_of_config_dir_is_seen(words: list[str]) -> None:
    assert [folder.name for folder in user_folders(["prompts=demo", *words])] == ["mine"]


@pytest.mark.parametrize(
    "words",
    [
        ["hydra.searchpath=[/tmp]"],
        ["+hydra.callbacks.x._target_=os.system"],
        ["hydra/job_logging=default"],
        ["--config-path", "/tmp"],
        ["-cp=/tmp"],
        ["--config-name=evil"],
        ["--experimental-rerun=config.pickle"],
    ],
)
def test_what_nobody_checked_or_steers_hydra_is_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="--config-dir"):
        user_folders(words)


def test_faults_of_one_part_do_not_hide_those_of_another() -> None:
    bad = {**SOUND, "sampling": {"steps": 0}, "model": {"source": "nowhere"}, "naming": {"folder": "../x"}}
    with pytest.raises(ConfigError) as caught:
        validate([{**bad, "prompts": {"file": "missing.txt"}, "dry_run": True}], [])
    assert [fault.split(":")[0] for fault in caught.value.faults] == [
        "sampling.steps",
        "naming.folder",
        "model 'nowhere'",
        "prompts.file",
    ]


def test_private_images_do_not_tell_their_prompt_in_the_name() -> None:
    with pytest.raises(ConfigError, match="naming=guid"):
        validate(
            [{**SOUND, "metadata": {"profile": "private"}, "naming": {"scheme": "descriptive"}, "dry_run": True}], []
        )


def test_layers_that_two_text_encoders_have_not_are_refused_before_anything_is_loaded(
    tiny_models: Path, tmp_path: Path
) -> None:
    config = {**SOUND, "model": {"source": str(tiny_models / "sdxl")}, "output": {"dir": str(tmp_path)}}
    batch = validate([{**config, "sampling": {"clip_skip": 3}}], [])
    with pytest.raises(ConfigError, match=r"sampling\.clip_skip: must be at most 2 for sdxl, whose text encoders have"):
        run(batch)


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ({"clip_skip": 3}, r"sampling\.clip_skip: must be at most 2 for demo"),
        ({"scheduler": "FlowMatch Euler"}, r"sampling\.scheduler: FlowMatch Euler does not suit demo"),
    ],
)
def test_what_the_weights_cannot_do_is_refused_before_anything_is_loaded(
    sampling: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    batch = validate([{**SOUND, "sampling": sampling, "output": {"dir": str(tmp_path)}}], [])
    with pytest.raises(ConfigError, match=expected):
        run(batch)


def test_a_key_of_ours_is_taken_though_the_option_file_leaves_it_out() -> None:
    arguments = ["naming=guid", "naming.folder=x", "grid.sampling.steps=[1,2]", "-m", "model.sampling.steps=8,9"]
    expected = ["-m", "naming=guid", "++naming.folder=x", "++grid.sampling.steps=[1,2]", "++model.sampling.steps=8,9"]
    assert known_overrides(arguments) == expected


def test_keys_of_a_mapping_are_the_users_choice() -> None:
    words = ["sampling.scheduler_options.timestep_spacing=trailing", "model.parameters.transformer=8"]
    assert known_overrides(words) == [f"++{word}" for word in words]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("grid={init.image: glob(a/*.png)}", '++grid={init.image: "glob(a/*.png)"}'),
        ("+grid={seed: range(0, 4), init.image: glob(**/*)}", '++grid={seed: "range(0, 4)", init.image: "glob(**/*)"}'),
        ("grid.init.image=glob(a b/*.png)", '++grid.init.image="glob(a b/*.png)"'),
        ('grid={init.image: glob("a b")}', "++grid={init.image: 'glob(\"a b\")'}"),
        ("++grid={init.image: 'glob(a)', seed: \"range(0, 2)\"}", None),
        ("++grid={prompts.prefix: ['it\\'s range(1, 2)']}", None),
        ("seeds=range(0,4)", 'seeds="range(0,4)"'),
        ("sampling.steps=range(10,40,10)", "++sampling.steps=range(10,40,10)"),  # Hydra's own, for -m
    ],
)
def test_functions_of_a_grid_and_of_seeds_need_no_quotes(word: str, expected: str | None) -> None:
    assert known_overrides([word]) == [expected or word]


def test_a_grid_of_files_composes_as_it_is_typed(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    (override,) = known_overrides([f"grid={{init.image: glob({tmp_path}/*.png), sampling.steps: range(10, 40, 10)}}"])
    grid = OverridesParser.create().parse_override(override).value()
    axes = Grid(parse_configs([{**SOUND, "grid": grid}])[0].grid)
    assert len(axes) == 6 and {dict(one.adapters)["init.image"] for one in axes} == {
        str(tmp_path / "a.png"),
        str(tmp_path / "b.png"),
    }


def test_options_may_stand_between_overrides() -> None:
    arguments = ["dry_run=true", "--config-dir", "mine", "model=demo", "+name=x", "-m"]
    assert known_overrides(arguments) == ["--config-dir", "mine", "-m", "dry_run=true", "model=demo", "name=x"]


def test_the_value_of_an_option_is_not_taken_for_an_override() -> None:
    """Or another folder would be read than the one that is checked."""
    with pytest.raises(ConfigError, match="/evil"):
        known_overrides(["--config-dir", "name=x", "/evil", "experiment=y"])
    arguments = known_overrides(["seeds=1", "--config-dir", "name=x", "experiment=y"])
    assert arguments == ["--config-dir", "name=x", "seeds=1", "experiment=y"]
    assert user_folders(arguments) == [Path("name=x")]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("+experiment=seed_study", "experiment=seed_study"),
        ("++seeds=3", "seeds=3"),
        ("experiment=null", "~experiment"),
        ("prompts=2024", 'prompts="2024"'),
        ("model=demo,null", 'model=demo,"null"'),
        ("prompts={lines: [a]}", "++prompts={lines: [a]}"),
        ("~prompts.lines", "~prompts.lines"),
    ],
)
def test_an_override_means_what_its_user_means(word: str, expected: str) -> None:
    assert known_overrides([word])[0] == expected


def test_every_misspelt_key_of_a_command_line_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        known_overrides(
            ["naming.foldr=x", "promts=1", "experiment=x", "sampling.steps=3", "smapling.steps=3", "stepz=7"]
        )
    assert list(caught.value.faults) == [
        "naming.foldr: unknown key; did you mean 'folder'?",
        "promts: unknown key; did you mean 'prompts'?",
        "smapling.steps: unknown key; did you mean 'sampling.steps'?",
        "stepz: unknown key; did you mean 'sampling.steps'?",
    ]
