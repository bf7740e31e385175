"""What `pip install` of a wheel gives: the whole product, from any folder, without the checkout."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 300
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
OFFLINE = ["--no-deps", "--no-index", "--no-cache-dir"]

pytestmark = pytest.mark.slow

Started = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the checkout, on a machine that has settings of its own."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "run.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("jobs", "pipeline", "conf", "tests/data"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "local"))
    (source / "conf" / "local").mkdir()
    (source / "conf" / "local" / "default.yaml").write_text("# @package _global_\nquiet: true\n")
    built = tmp_path_factory.mktemp("built")
    subprocess.run(
        [*PIP, "wheel", "--no-build-isolation", *OFFLINE, "--wheel-dir", str(built), str(source)],
        check=True,
        timeout=TIMEOUT_S,
    )
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment with the wheel, which sees the packages that are installed here already."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=TIMEOUT_S)
    programs = environment / ("Scripts" if sys.platform == "win32" else "bin")
    subprocess.run(
        [*PIP, "--python", str(programs / "python"), "install", *OFFLINE, str(wheel)], check=True, timeout=TIMEOUT_S
    )
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([programs / "python", "-c", where], check=True, capture_output=True, text=True).stdout.strip()
    torch = importlib.util.find_spec("torch")
    assert torch and torch.origin
    (Path(site) / "others.pth").write_text(f"{Path(torch.origin).parents[1]}\n")  # .pth files in there are not read
    return programs


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder to work in, and a home beside it."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture
def start(installed: Path, elsewhere: Path) -> Started:
    """Runs a program of the environment in the folder."""

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        home = elsewhere / "home"
        own = {"XDG_CONFIG_HOME": str(home / "config"), "DARKROOM_HOME": str(home / "data")}
        (elsewhere / "work").mkdir(exist_ok=True)
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [str(installed / program), *arguments],
            cwd=elsewhere / "work",
            env={**env, **own},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )

    return run


def test_it_holds_the_product_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith("darkroom-")}
    assert {name.partition("/")[0] for name in names} == {"jobs", "pipeline", "run.py"}
    shipped = {path for path in (ROOT / "conf").rglob("*") if path.is_file() and path.parent.name != "local"}
    options = {name.removeprefix("jobs/conf/") for name in names if name.startswith("jobs/conf/")}
    assert options == {path.relative_to(ROOT / "conf").as_posix() for path in shipped}
    for package in ("jobs", "pipeline"):
        kept = (path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        assert {path.relative_to(ROOT).as_posix() for path in kept} <= names


def test_a_picture_is_made_found_and_explained_from_an_empty_folder(start: Started, elsewhere: Path) -> None:
    made = start("darkroom", "run", "prompts.lines=[a house by the sea]", "engine.device=cpu")
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines() == ["1 requested: 1 made; model loads: 1", "images and manifest: outputs"]
    (image,) = (elsewhere / "work" / "outputs").glob("demo/*.png")
    found = start("darkroom", "search", "house", "--format", "paths")
    assert found.stdout.strip() == str(Path("outputs") / "demo" / image.name)
    shown = start("darkroom", "show", str(image), "--json")
    assert json.loads(shown.stdout)["prompt"] == "a house by the sea"
    again = start("darkroom", "run", "prompts.lines=[a house by the sea]", "engine.device=cpu")
    assert (again.returncode, "1 were there already" in again.stdout) == (0, True)


def test_it_is_the_same_program_as_run_py(start: Started) -> None:
    shown = start("darkroom", "run", "--help")
    assert shown.returncode == 0 and "  darkroom run -m sampling.steps=8,16 prompts=batch1" in shown.stdout
    assert "run.py" not in shown.stdout
    for arguments in (("sampling.stepz=3",), ("experiment=seed_study", "--cfg", "job"), ("--version",)):
        own = subprocess.run([sys.executable, ROOT / "run.py", *arguments], capture_output=True, text=True)
        ended = start("darkroom", "run", *arguments)
        assert (ended.returncode, ended.stdout, ended.stderr) == (own.returncode, own.stdout, own.stderr), arguments


def test_options_of_the_user_s_own_are_taken(start: Started, elsewhere: Path) -> None:
    mine = elsewhere / "home" / "config" / "darkroom" / "conf"
    (mine / "prompts").mkdir(parents=True)
    (mine / "prompts" / "mine.yaml").write_text("lines: [a boat, a tree]\n")
    given = elsewhere / "work" / "given" / "model"
    given.mkdir(parents=True)
    (given / "other.yaml").write_text("source: demo\n")
    plan = start("darkroom", "run", "--config-dir", "given", "prompts=mine", "model=other", "dry_run=json")
    assert plan.returncode == 0, plan.stderr
    assert json.loads(plan.stdout)["requested"] == 2


def test_doctor_finds_the_profiles(start: Started) -> None:
    diagnosis = json.loads(start("darkroom", "doctor", "--json").stdout)
    names = {path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")} - {"auto", "custom"}
    assert {profile["name"] for profile in diagnosis["profiles"]} == names and not diagnosis["faults"]


def test_pictures_are_made_from_python(start: Started, installed: Path) -> None:
    program = """
from pipeline import Pipeline
import jobs, pipeline
with Pipeline(device="cpu") as pipe:
    print(pipe.generate("a boat", steps=2).save("outputs"))
print(jobs.__file__)
print(pipeline.__file__)
"""
    ended = start("python", "-c", program)
    assert ended.returncode == 0, ended.stderr
    path, *packages = ended.stdout.splitlines()
    assert path.startswith("outputs")
    assert all(Path(package).is_relative_to(installed.parent) for package in packages)
