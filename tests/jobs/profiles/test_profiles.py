"""Profiles as a user has them: saved, listed, chosen, deleted; given to runs; made of runs and of images."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from forked import Ended, program
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from jobs.cli.commands import run_command
from jobs.cli.run_py import composed
from jobs.config.option_folders import option_folders
from jobs.config.profiles import KeptSettings, read_profile, settings_given
from jobs.config.trust import check_trust
from pipeline.metadata.reading import read_record

KEY = "sk-" + "Ab3dE6gH9jK2mN5pQ8sT1vW4xY7zC0"


Command = Callable[..., Ended]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a user who has a configuration folder of their own, with nothing in it yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HYDRA_MAIN_MODULE", "__main__")  # conf/ is looked for beside the file, not in a package
    monkeypatch.setattr(sys, "argv", ["darkroom"])
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def profile(here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """`darkroom profile ...`, in this process."""

    def command(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["darkroom", "profile", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        code = run_command()
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    return command


def run(here: Path, *arguments: str) -> Ended:
    return program("run.py", *arguments, cwd=here, folder=here)


def composed_of(*arguments: str) -> dict[str, Any]:
    """What a run with these arguments would be composed of."""
    return composed(list(arguments))


def saved(here: Path, name: str) -> Path:
    return here.parent / "config" / "darkroom" / "conf" / "profile" / f"{name}.yaml"


@pytest.mark.slow
def test_a_profile_gives_its_settings_and_the_command_line_wins(here: Path, profile: Command) -> None:
    given = ("sampling=draft", "sampling.scheduler=Euler a", "seeds=[1, 2]", "grid={sampling.width: range(32, 64, 8)}")
    ended = profile("save", "fast", *given, 'name="a, é"', "output.dir=pictures")
    assert ended.code == 0 and "profile=fast" in ended.out, ended
    assert saved(here, "fast").stat().st_mode & 0o777 == 0o600
    config = composed_of("profile=fast")
    assert config["sampling"]["steps"] == 8 and config["sampling"]["scheduler"] == "Euler a"
    assert (config["seeds"], config["grid"]) == ([1, 2], {"sampling.width": "range(32, 64, 8)"})
    assert composed_of("profile=fast", "sampling.steps=3", "seeds=7")["sampling"]["steps"] == 3


@pytest.mark.slow
def test_an_option_of_the_command_line_replaces_what_the_profile_has_of_its_group(here: Path, profile: Command) -> None:
    given = ("model=custom", "model.source=demo", "model.name=mine", "sampling.steps=6", "prompts.lines=[a boat]")
    assert profile("save", "mine", *given, "prompts.negative_prompt=blurry", "memory.budget_gb=3").code == 0
    assert profile("use", "mine").code == 0
    config = composed_of("model=sdxl", "sampling=quality", "prompts=batch1")
    assert config["model"]["source"].startswith("hf:") and config["model"].get("name") != "mine"
    assert (config["sampling"]["steps"], config["memory"]["budget_gb"]) == (50, 3)
    assert len(config["prompts"]["lines"]) == 12 and config["prompts"]["name"] == "batch1"
    assert config["prompts"]["negative_prompt"] == "blurry"
    config = composed_of("prompt=a car", "sampling.guidance_scale=2")
    assert (config["prompts"]["lines"], config["prompts"]["name"]) == (["a car"], "prompt")
    assert (config["sampling"]["steps"], config["model"]["source"]) == (6, "demo")
    jobs = json.loads(run(here, "-m", "sampling=draft,quality", "prompt=a,b", "dry_run=json").out)["jobs"]
    assert sorted((job["prompt"], job["steps"]) for job in jobs) == [("a", 8), ("a", 50), ("b", 8), ("b", 50)]
    kept = settings_given(["sampling=quality", "prompt=a car"], composed_of("sampling=quality"), option_folders())
    assert kept.choices == {"model": "custom", "sampling": "quality", "prompts": "prompt"}
    assert "sampling" not in kept.values and kept.values["prompts"] == {"negative_prompt": "blurry"}


@pytest.mark.slow
def test_profiles_are_listed_shown_used_and_deleted(here: Path, profile: Command) -> None:
    assert "no profiles here" in profile("list").out
    for name, steps in (("fast", 3), ("slow", 90)):
        assert profile("save", name, f"sampling.steps={steps}").code == 0
    assert profile("use", "slow").code == 0
    rows = json.loads(profile("list", "--json").out)
    assert [(row["name"], row["used"], row["keys"]) for row in rows] == [
        ("fast", False, {"sampling": {"steps": 3}}),
        ("slow", True, {"sampling": {"steps": 90}}),
    ]
    assert yaml.safe_load(profile("show", "fast").out) == {"sampling": {"steps": 3}}
    steps = [composed_of(*words)["sampling"]["steps"] for words in ((), ("profile=fast",), ("profile=null",))]
    assert steps == [90, 3, None]
    asked = profile("delete", "slow")
    assert asked.code == 2 and "--yes" in asked.err and saved(here, "slow").is_file()
    assert "runs take no profile now" in profile("delete", "slow", "--yes").out
    assert composed_of()["sampling"]["steps"] is None
    assert profile("use", "fast").code == profile("use", "--none").code == 0
    assert composed_of()["sampling"]["steps"] is None


FAULTS = [
    (["save", "bad", "sampling.stepz=3"], "sampling.stepz: unknown key; did you mean 'steps'?"),
    (["save", "bad", "sampling.steps=0"], "sampling.steps: must be a whole number from 1 to 1000"),
    (["save", "bad", "sampling=drafft"], "sampling=drafft: no such option; did you mean 'draft'?"),
    (["save", "bad", "sampling.steps=1,2"], "several values (1,2)"),
    (["save", "bad"], "nothing to keep"),
    (["save", "last", "seeds=1"], "'last' cannot be a name"),
    (["save", "../bad", "seeds=1"], "'../bad' cannot be a name"),
    (["show", "fats"], "profile=fats: no such profile; did you mean 'fast'?"),
    (["use", "fats"], "profile=fats: no such profile; did you mean 'fast'?"),
    (["delete", "fats"], "profile=fats: no such profile; did you mean 'fast'?"),
    (["show", "last"], "profile=last: there was no run yet"),
    (["use"], "give either the name of a profile or --none"),
]


@pytest.mark.slow
def test_faults_are_one_line_and_leave_nothing(here: Path, profile: Command) -> None:
    assert profile("save", "fast", "seeds=4").code == 0
    for arguments, message in FAULTS:
        ended = profile(*arguments)
        assert ended.code == 2 and message in ended.err and len(ended.err.splitlines()) == 1, (arguments, ended)
        assert [path.name for path in saved(here, "fast").parent.iterdir()] == ["fast.yaml"], arguments
    assert composed_of("profile=fast")["seeds"] == 4


@pytest.mark.slow
def test_a_run_with_an_unknown_profile_is_refused(here: Path, profile: Command) -> None:
    assert profile("save", "fast", "seeds=4").code == 0
    for arguments in (["profile=fats"], ["-m", "profile=fast,fats"]):
        ended = run(here, *arguments, "dry_run=true")
        assert ended.code == 2 and ended.err == "profile=fats: no such profile; did you mean 'fast'?\n"


@pytest.mark.slow
def test_last_is_what_the_last_run_was_given(here: Path, profile: Command, tiny_sd: Path) -> None:
    given = ["prompt=a boat, oil", "model=custom", f"model.source={tiny_sd}", "sampling.steps=1", "engine.device=cpu"]
    ended = run(here, *given, "hub.proxy=http://me:secret@host:1", "on_end=[echo]")
    assert ended.code == 0, ended.err
    assert "secret" not in saved(here, "last").read_text() and "on_end" not in saved(here, "last").read_text()
    again = run(here, "profile=last")
    assert again.code == 0 and "1 were there already" in again.out, again
    more = run(here, "profile=last", "sampling.steps=2")
    assert more.code == 0 and "1 made" in more.out, more
    assert composed_of("profile=last")["sampling"]["steps"] == 2  # what came from `last` is still there
    assert run(here, "-m", "profile=last", "sampling.steps=1,2").code == 0  # a sweep is no profile
    assert run(here, "seeds=9", "dry_run=true").code == 0
    config = composed_of("profile=last")
    assert (config["prompt"], config["sampling"]["steps"], config["seeds"]) == ("a boat, oil", 2, 0)
    private = run(here, "profile=last", "metadata=private", "prompt=a violet dragon")
    assert private.code == 0 and "metadata: private" in saved(here, "last").read_text()
    assert "dragon" not in saved(here, "last").read_text() and "boat" not in saved(here, "last").read_text()


def test_a_run_goes_on_where_its_profile_cannot_be_kept(here: Path, tiny_sd: Path) -> None:
    (here.parent / "config").write_text("no folder")
    given = ["prompt=a boat", "model=custom", f"model.source={tiny_sd}", "sampling.steps=1", "engine.device=cpu"]
    assert run(here, *given).code == 0
    (log,) = (here / "outputs" / "runs").glob("*/run.log")
    assert "profile=last is not of this run" in log.read_text()


def lora_of(model: Path, path: Path) -> Path:
    """A LoRA of one layer, made for the model at this path."""
    (weights,) = (model / "unet").glob("*.safetensors")
    with safe_open(weights, "numpy") as tensors:
        key = next(key for key in tensors.keys() if key.endswith("attn1.to_q.weight"))  # noqa: SIM118
        outputs, inputs = tensors.get_slice(key).get_shape()
    draw, layer = np.random.default_rng(0), key.removesuffix(".weight")
    down, up = (draw.standard_normal(shape).astype(np.float32) for shape in ((2, inputs), (outputs, 2)))
    save_file({f"unet.{layer}.lora_A.weight": down, f"unet.{layer}.lora_B.weight": up}, path)
    return path


@pytest.mark.slow
def test_a_profile_of_an_image_asks_for_the_same_picture(here: Path, profile: Command, tiny_sd: Path) -> None:
    Image.new("RGB", (40, 40), (200, 30, 90)).save(here / "start.png")
    lora_of(tiny_sd, here / "style.safetensors")
    given = ["model=custom", f"model.source={tiny_sd}", "sampling.steps=2"]
    given += ["sampling.scheduler=DPM++ 2M Karras"]
    given += ["sampling.guidance_scale=3.5", "sampling.scheduler_options={use_lu_lambdas: false}", "sampling.height=40"]
    given += ["init.image=start.png", "init.strength=0.8", "memory=balanced", "memory.techniques.vae_slicing=true"]
    given += ["adapters.loras=[{source: style.safetensors, weight: 0.5}]"]
    device = ["engine.device=cpu", "engine.cpu_threads=1"]
    made = run(here, "prompt=a boat", "seeds=3", *given, *device)
    assert made.code == 0, made.err
    (image,) = (here / "outputs" / "prompt").glob("*.png")
    ended = profile("save", "like", "--from-image", str(image))
    assert ended.code == 0, ended.err
    elsewhere = here.parent / "elsewhere"
    elsewhere.mkdir()
    same = program(
        "run.py", "profile=like", "prompt=a boat", "seeds=3", f"output.dir={here / 'outputs'}", *device, "dry_run=true",
        cwd=elsewhere, folder=elsewhere,
    )  # fmt: skip
    assert same.code == 0 and "already done  1" in same.out and "to make       0" in same.out, same
    changed = profile("save", "other", "--from-image", read_record(image).id[:8], "sampling.steps=9")
    assert changed.code == 0 and composed_of("profile=other")["sampling"]["steps"] == 9

    (summary,) = (here / "outputs" / "runs").glob("*/summary.json")
    ended = profile("save", "night", "--from-run", summary.parent.name[:12], "seeds=3")
    assert ended.code == 0, ended.err
    assert "already done  1" in run(here, "profile=night", "dry_run=true").out


@pytest.mark.slow
def test_what_the_profile_of_a_run_cannot_have_is_told(here: Path, profile: Command, tiny_sd: Path) -> None:
    given = ["prompt=a boat", "model=custom", f"model.source={tiny_sd}", "engine.device=cpu", "dry_run=false"]
    assert run(here, "-m", *given, "sampling.steps=1,2").code == 0
    ended = profile("save", "night", "--from-run", "2")
    assert ended.code == 2 and "was a sweep (-m)" in ended.err
    assert run(here, *given, "sampling.steps=1", "hub.proxy=http://me:secret@host:1", "output.dir=other").code == 0
    ended = profile("save", "night", "--from-run", "2", "--output-dir", "other")
    assert ended.code == 2 and "its command was not kept whole" in ended.err
    Image.new("RGB", (8, 8)).save(here / "plain.png")
    assert profile("save", "night", "--from-image", "plain.png").code == 2


def test_keys_and_references_do_not_come_back_from_a_file(tmp_path: Path) -> None:
    config = {
        "prompt": "a ${name} \\${x}",
        "prompts": {"lines": ["a boat", f"my key is {KEY}"]},
        "hub": {"proxy": "http://me:secret@host:1", "auto_download": True},
        "name": f"{KEY}",
    }
    words = ["prompts.lines=[a boat]", "hub={proxy: x, auto_download: true}", "name=x", "seeds=1", "~grid"]
    kept = settings_given(words, {**config, "prompt": None}, [])
    assert kept.values == {"prompts": {"lines": ["a boat"]}, "hub": {"auto_download": True}, "prompt": None}
    (tmp_path / "profile").mkdir()
    kept = settings_given(["prompt=a boat"], config, [])
    (tmp_path / "profile" / "mine.yaml").write_text(kept.text())
    check_trust([tmp_path], tmp_path / "config.yaml")
    assert read_profile("mine", [tmp_path]) == kept
    assert kept == KeptSettings({"prompts": "prompt"}, {"prompt": "a \\${name} \\\\\\${x}"})
