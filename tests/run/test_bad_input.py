"""Bad input through the whole command line: exit code 2, lines that name the key, nothing written, no traceback."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from forked import Ended, ensure_server
from running import REPO

from pipeline.version import VERSION

Command = Callable[..., Ended]
MAX_SEED = 2**53 - 1


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("darkroom_run", REPO / "run.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["darkroom_run"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def command(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """Runs `run.py --config-dir tmp_path/conf ... output.dir=tmp_path/out` in this process."""
    ensure_server()  # or each of them would start one of its own, which imports torch until it is ended
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_MAIN_MODULE", "__main__")  # conf/ is looked for beside the file, not in a package
    (tmp_path / "conf" / "prompts").mkdir(parents=True)

    def run(*arguments: str, output: str = "out") -> Ended:
        flags = [argument for argument in arguments if argument.startswith("-")]
        rest = [argument for argument in arguments if argument not in flags]
        full = [*flags, "--config-dir", str(tmp_path / "conf"), f"output.dir={output}", "engine.device=cpu", *rest]
        monkeypatch.setattr(sys, "argv", ["run.py", *full])
        code = None
        try:
            code = program.run(full)
        except SystemExit as stop:
            code = stop.code
        out, err = capfd.readouterr()
        assert isinstance(code, int), code
        return Ended(code, out, err)

    return run


def refused(finished: Ended, *words: str, lines: int | None = None) -> None:
    assert finished.code == 2, finished
    assert "Traceback" not in finished.err and finished.out == ""
    missing = [word for word in words if word not in finished.err]
    assert not missing, finished.err
    assert lines is None or len(finished.err.splitlines()) == lines, finished.err
    for untouched in ("out", "outputs", "multirun"):
        assert not Path(untouched).exists(), untouched


# One setting at a time: (arguments, what the message names)
SETTINGS = [
    (["prompts=nosuch"], ["prompts", "nosuch", "batch1"]),
    (["memory=agressive"], ["memory", "agressive", "aggressive"]),
    (["prompts=null"], ["prompts=null: no such option", "batch1", "prompt=TEXT"]),
    (["model=null"], ["model=null: no such option", "sdxl"]),
    (["-m", "sampling=draft,null"], ["sampling=null: no such option", "draft"]),
    (["memory="], ["memory=: no such option", "balanced"]),
    (["model=1"], ["model=1: no such option"]),
    (["prompts=[demo,1]"], ["prompts=1: no such option"]),
    (["prompts={stepz: 1}"], ["prompts.stepz: unknown key"]),
    (["a red boat"], ["'a red boat': is not key=value", "'prompt=a red boat'", "prompts=NAME"]),
    (["prompt=a boat", "prompts=batch1"], ["prompt: prompts= is given too"]),
    (["prompt=a boat", "prompts.lines=[a house]"], ["prompt: prompts.lines= is given too"]),
    (["prompt="], ["prompt: is empty"]),
    (["prompt=REMOVED"], ["prompt: the prompt was not kept in this command"]),
    (["prompt={a boat|a house"], ["prompt: '{' at character 1 is never closed"]),
    (["prompt=a __nosuchthing__"], ["prompt: ", "nosuchthing"]),
    (["prompts=prompt"], ["prompts=prompt: is the set of a prompt on the command line"]),
    (["a", "red", "boat"], ["'a red boat': is not key=value"]),
    (["steps=7"], ["steps: unknown key; did you mean 'sampling.steps'?"]),
    (["dtype=float16"], ["'model.dtype' or 'memory.dtype'"]),
    (["prompts=demo,batch1"], ["prompts: several options (demo,batch1); -m makes each of them"]),
    (["seeds=1,2"], ["seeds: several values (1,2)", "-m or 'seeds=[1,2]'"]),
    (["sampling.steps=4,8"], ["sampling.steps: several values (4,8)", "-m or 'grid={sampling.steps: [4,8]}'"]),
    (["-m", "--cfg=job"], ["--multirun", "--cfg"]),
    (["sampling.stepz=3"], ["sampling.stepz"]),
    (["+sampling.stepz=3"], ["sampling.stepz", "did you mean 'steps'?"]),
    (["+promts.lines=[a]"], ["promts.lines", "did you mean 'prompts.lines'?"]),
    (["sampling.steps=many"], ["sampling.steps", "'many'", "whole number"]),
    (["sampling.steps=7.5"], ["sampling.steps", "7.5"]),
    (["sampling.steps=0"], ["sampling.steps", "(got 0)"]),
    (["sampling.guidance_scale=-1"], ["sampling.guidance_scale", "-1"]),
    (["sampling.width=100"], ["sampling.width", "multiple of 8", "96 or 104"]),
    (["sampling.height=8192"], ["sampling.height", "4096", "8192"]),
    (["sampling.scheduler=eulr"], ["sampling.scheduler", "'Euler'"]),
    ([f"seeds={MAX_SEED + 1}"], ["seeds", str(MAX_SEED)]),
    (["seeds=-1"], ["seeds", "-1"]),
    (["seeds=[]"], ["seeds", "at least one"]),
    (["batch_size=0"], ["batch_size", "auto"]),
    (["dry_run=perhaps"], ["dry_run", "json"]),
    (["on_end=notify"], ["on_end", "list"]),
    (["on_end=[]"], ["on_end"]),
    (["on_end=REMOVED"], ["on_end", "list"]),
    (["on_error=explode"], ["on_error", "must be one of continue, stop"]),
    (["output.format=gif"], ["output.format", "png"]),
    (["grid={sampling.stepz: [1, 2]}"], ["grid", "sampling.stepz", "sampling.steps"]),
    (['grid={seed: "range(0, 4000)", sampling.steps: "range(1, 900)", sampling.width: [64, 72, 80]}'], ["10,000,000"]),
    (["naming.scheme=custom", 'naming.folder="../../etc"'], ["naming.folder"]),
    (["naming.scheme=custom", 'naming.folder="/etc"'], ["naming.folder"]),
    (["prompts.lines=[]"], ["prompts.lines", "empty"]),
    (["prompts.lines=[__nosuchthing__]"], ["nosuchthing"]),
    (["~prompts.lines", "+prompts.file=nowhere.txt"], ["nowhere.txt"]),
    (["model=custom"], ["model.source"]),
    (["engine.device=mps"], ["engine.device", "mps"]),
    (["-m", "on_error=stop,continue"], ["on_error", "sweep"]),
    (["sampling.steps=[1"], ["'[1'"]),
]


@pytest.mark.parametrize(("arguments", "words"), SETTINGS, ids=[" ".join(one[0]) for one in SETTINGS])
def test_setting_is_refused(command: Command, arguments: list[str], words: list[str]) -> None:
    if arguments == ["engine.device=mps"] and sys.platform == "darwin":
        pytest.skip("this machine has it")
    refused(command(*arguments), *words, lines=1)


@pytest.mark.slow
def test_all_faults_of_a_sweep_are_told_at_once(command: Command, tmp_path: Path) -> None:
    (tmp_path / "conf" / "prompts" / "mine.yaml").write_text(
        "nam: mine\nlines: [ok, {text: x, stepz: 3}, {text: y, width: 12}, 5]\n"
    )
    shared = ["sampling.guidance_scale=-2", "sampling.height=9999", "batch_size=none", "seeds=1.5"]
    finished = command("-m", "prompts=mine", "sampling.steps=0,-3", *shared)
    refused(finished, "prompts.nam: unknown key; did you mean 'name'?", "sampling.height", "batch_size", "seeds")
    assert "(got 0)" in finished.err and "(got -3)" in finished.err  # each configuration of the sweep
    assert finished.err.count("sampling.guidance_scale") == 1  # what they share is told once

    (tmp_path / "conf" / "prompts" / "mine.yaml").write_text(
        "name: mine\nlines: [ok, {text: x, stepz: 3}, {text: y, width: 12}, 5]\n"
    )
    finished = command("prompts=mine", "model=custom", "model.source=nowhere", "naming=custom", "naming.separator='/'")
    refused(finished, "prompts.lines[1]", "'steps'", "prompts.lines[2]", "prompts.lines[3]", "nowhere", "separator")


FILES = [
    ("empty.txt", b"\n# nothing\n", ["empty.txt"]),
    ("binary.txt", b"\x89PNG\x00\x00\x00\rIHDR", ["binary.txt"]),
    ("latin.txt", "a red house\nein grünes Haus\n".encode("latin-1"), ["latin.txt", "2", "UTF-8"]),
    ("no_column.csv", b"text_of_prompt;seed\na;1\n", ["no_column.csv", "prompt"]),
    ("torn.jsonl", b'{"text": "a"}\n{"text": "b"\n', ["torn.jsonl", "2"]),
    ("wrong.jsonl", b'{"text": "a", "steps": 0}\n', ["wrong.jsonl", "1", "steps"]),
]


@pytest.mark.parametrize(("name", "content", "words"), FILES, ids=[one[0] for one in FILES])
def test_prompt_file_is_refused(command: Command, tmp_path: Path, name: str, content: bytes, words: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    finished = command("prompts=from_file", f"prompts.file={name}")
    refused(finished, *words)
    assert len(finished.err.splitlines()) <= 3, finished.err


def test_a_prompt_of_a_file_is_named_by_the_file_that_the_user_gave(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("# keys\na red house\nmy key is sk-Ab3dE6gH9jK2mN5pQ8sT1vW4xY7zC0\n")
    finished = command("prompts=from_file", "prompts.file=mine.txt", "dry_run=true")
    assert "refused: mine.txt:3, 1 image: " in finished.out + finished.err, finished


def test_output_folder_that_cannot_be_one(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    refused(command(output="file"), "output.dir", "is a file", lines=1)
    refused(command(output="file/below"), "output.dir", "file/below", lines=1)
    refused(command(output="/proc/darkroom"), "output.dir", "/proc/darkroom", "another folder", lines=1)
    assert (tmp_path / "file").read_text() == "mine"


HARMFUL = {
    "target": "lines: [x]\nextra: {_target_: builtins.open, file: TARGET, mode: w}\n",
    "hydra_block": "lines: [x]\nhydra: {run: {dir: TARGET}}\n",
    "callback": (
        "# @package _global_\n"
        "hydra:\n  callbacks:\n    x:\n      _target_: builtins.open\n      file: TARGET\n      mode: w\n"
    ),
    "package": "# @package hydra.callbacks\nx: {_target_: builtins.open, file: TARGET, mode: w}\n",
    "defaults": "defaults:\n  - override /hydra/job_logging: default\nlines: [x]\n",
    "tag": "lines: [!!python/object/apply:builtins.open [TARGET, w]]\n",
}


@pytest.mark.parametrize("name", HARMFUL)
def test_option_file_that_steers_hydra_is_refused_before_it_is_read(
    command: Command, tmp_path: Path, name: str
) -> None:
    target = tmp_path / "harm"
    (tmp_path / "conf" / "prompts" / "evil.yaml").write_text(HARMFUL[name].replace("TARGET", str(target)))
    for arguments in (["prompts=evil"], []):  # chosen, and merely lying there
        refused(command(*arguments), "evil.yaml", "prompts from strangers")
        assert not target.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["prompts.lines=['a red house ${oc.env:HF_TOKEN}']"],
        ["prompts=env"],
        ["prompts.lines=['${name}']", "name='${oc.env:HF_TOKEN}'"],
        ["prompt=a red house ${oc.env:HF_TOKEN}"],
        ["+prompts.negative_prompt='${oc.env:HF_TOKEN}'", "dry_run=true"],
        ["-m", "prompts.lines=['${oc.decode:${oc.env:HF_TOKEN}}']", "seeds=1,2"],
        ["naming.folder='${oc.env:HF_TOKEN}'"],
        ["model.name='${oc.env:HF_TOKEN}'"],
        ["engine.device='${oc.env:HF_TOKEN}'"],
    ],
    ids=["line", "file", "through a key", "one prompt", "dry run", "nested", "folder", "model", "another key"],
)
def test_environment_reaches_no_prompt_and_no_name(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    token = "hf_" + "QwErTy12" * 4
    monkeypatch.setenv("HF_TOKEN", token)
    (tmp_path / "conf" / "prompts" / "env.yaml").write_text("lines: ['${oc.env:HF_TOKEN}']\n")
    finished = command(*arguments)
    refused(finished, "oc.")
    assert token not in finished.err


STEERING = {
    "folder behind an override": ["--config-dir", "name=x", "EVIL", "experiment=y"],
    "node as a whole": ["++hydra={callbacks:{x:{_target_:builtins.open,file:TARGET,mode:w}}}"],
    "package": ["--config-dir", "FINE", "+prompts@hydra.job_logging.handlers.x=mine"],
}


@pytest.mark.parametrize("name", STEERING)
def test_arguments_that_steer_hydra_are_refused_as_hydra_would_read_them(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    target = tmp_path / "harm"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_MAIN_MODULE", "__main__")
    (tmp_path / "evil" / "experiment").mkdir(parents=True)
    (tmp_path / "evil" / "experiment" / "y.yaml").write_text(HARMFUL["callback"].replace("TARGET", str(target)))
    (tmp_path / "fine" / "prompts").mkdir(parents=True)
    (tmp_path / "fine" / "prompts" / "mine.yaml").write_text(f"class: logging.FileHandler\nfilename: {target}\n")
    places = {"EVIL": tmp_path / "evil", "FINE": tmp_path / "fine"}
    arguments = [str(places.get(word, word)).replace("TARGET", str(target)) for word in STEERING[name]]
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments, "dry_run=true"])
    try:
        code = program.run(sys.argv[1:])
    except SystemExit as stop:
        code = stop.code
    assert not target.exists() and code == 2
    assert "Traceback" not in capfd.readouterr().err


def test_traceback_only_when_asked_for(command: Command) -> None:
    quiet, loud = command("sampling.steps=0"), command("sampling.steps=0", "verbose=true")
    assert (quiet.code, loud.code) == (2, 2)
    assert "Traceback" not in quiet.err and "Traceback" in loud.err
    assert loud.err.strip().splitlines()[-1] == quiet.err.strip()


def test_help_and_configuration_are_shown(command: Command) -> None:
    shown = command("--help")
    assert shown.code == 0 and "python run.py -m sampling.steps=8,16 prompts=batch1" in shown.out
    assert "memory: aggressive, auto, balanced, none, ultra" in shown.out
    composed = command("--cfg=job")
    assert composed.code == 0 and "guidance_scale" in composed.out and not Path("out").exists()


def test_version_is_the_product_s(command: Command) -> None:
    shown = command("--version")
    assert (shown.code, shown.out) == (0, f"darkroom {VERSION}\n")


def test_a_shell_completes_keys_and_options(tmp_path: Path) -> None:
    """As bash does on Tab, with the script that it is given."""
    script = """
        eval "$(python run.py -sc install=bash)" || exit 1
        COMP_LINE="python run.py memory=au" COMP_POINT=23 COMP_CWORD=2
        hydra_bash_completion
        echo "${COMPREPLY[@]}"
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=REPO, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "memory=auto", "")


def test_damaged_manifest_is_worked_around(command: Command, tmp_path: Path) -> None:
    """A torn journal, an empty part and somebody else's Parquet file: said, and left."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    leak = "prompts.lines=[my key is sk-Ab3dE6gH9jK2mN5pQ8sT1vW4xY7zC0]"  # fails before a model is needed
    assert command(leak, "quiet=true").code == 3
    manifest = tmp_path / "out" / "manifest"
    (part,) = (manifest / "parts").iterdir()
    journal = manifest / "journal" / f"{part.stem[:-4]}0002.jsonl"
    journal.write_bytes(b'{"event": "nonsense"}\nnot json at all\n{"event": "done", "image')
    (manifest / "parts" / "empty.parquet").touch()
    pq.write_table(pa.table({"a": [1]}), manifest / "parts" / "foreign.parquet")
    (manifest / "parts" / ".torn.parquet.0.tmp").write_bytes(b"PAR1")

    finished = command(leak)
    assert finished.code == 3 and "1 failed before" in finished.out
    assert "Traceback" not in finished.err
    with contextlib.suppress(FileNotFoundError):
        journal.unlink()
    assert part.exists() and (manifest / "parts" / "foreign.parquet").exists()


def test_a_prompt_in_a_dry_run_drives_no_terminal_and_json_has_it_as_it_is(command: Command, tmp_path: Path) -> None:
    prompt = "a castle \u202e reversed"
    (tmp_path / "lines.jsonl").write_text(json.dumps({"prompt": prompt}), encoding="utf-8")
    prompts = ["prompts=lines", "model=demo"]
    (tmp_path / "conf" / "prompts" / "lines.yaml").write_text(f"file: {tmp_path / 'lines.jsonl'}\n")
    for dry_run in ("true", "json"):
        ended = command(*prompts, f"dry_run={dry_run}", "verbose=true")
        assert ended.code == 0, ended.err
        assert "\u202e" not in ended.out and "a castle" in ended.out
    assert prompt in [job["prompt"] for job in json.loads(ended.out)["jobs"]]


def test_a_folder_of_options_that_is_not_there_is_named(command: Command) -> None:
    """And not the option that would be in it."""
    ended = command("--config-dir=nowhere", "prompts=mine")
    assert (ended.code, ended.out, ended.err) == (2, "", "--config-dir nowhere: no such folder\n")
