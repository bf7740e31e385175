"""What stays cold. Who may import whom is in pyproject.toml, and `make lint` holds it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PRODUCT = sorted([*(REPO / "pipeline").rglob("*.py"), *(REPO / "jobs").rglob("*.py"), REPO / "run.py"])
HEAVY = {"torch", "diffusers", "transformers"}
KNOWS_TENSORS = tuple(
    f"pipeline/{room}"
    for room in ("memory/device/", "loading/", "adapters/", "generation/", "system/", "schedulers.py")
)


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every imported module of a file as a dotted name, and whether importing the file imports it."""

    def walk(node: ast.AST, cold: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((name.name, cold) for name in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                yield child.module or "", cold
            elif not _for_types_only(child):
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, cold and not inside)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), True)


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def name_of(path: Path) -> str:
    return path.relative_to(REPO).as_posix()


def test_the_walk_sees_what_it_looks_for() -> None:
    found = dict(imports(REPO / "pipeline" / "generation" / "noise.py"))
    assert found["torch"] is False and found["sys"] is True
    assert len(PRODUCT) > 50


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_tensors_come_late_and_to_few_rooms(path: Path) -> None:
    for module, at_import in imports(path):
        top = module.partition(".")[0]
        if top in HEAVY:
            assert name_of(path).startswith(KNOWS_TENSORS), f"{module}: not in this room"
            assert not at_import, f"{module} must be imported inside functions"
        assert top not in ("run", "examples"), f"{module} is imported by nobody"


NETWORK = {"socket", "ssl", "http", "urllib.request", "ftplib", "smtplib", "asyncio", "httpcore2", "httpx", "ollama"}
NETWORK |= {"httpcore", "requests", "urllib3", "aiohttp", "huggingface_hub"}
OPENS_CONNECTIONS = {
    "pipeline/hubs/transport.py",
    "pipeline/hubs/connecting.py",
    "pipeline/hubs/addresses.py",  # checks numbers that the others found
    "pipeline/selection/ollama/client.py",  # to the one server that the user named
    "pipeline/selection/ollama/wire.py",
    "pipeline/selection/ollama/listening.py",  # to the same, and sends nothing
    "jobs/gallery/serving.py",  # listens on loopback, and opens none
    "pipeline/metadata/leaks.py",  # only asks for this machine's own name
}


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_few_modules_can_open_connections(path: Path) -> None:
    found = {module for module, _ in imports(path) if {module, module.partition(".")[0]} & NETWORK}
    assert not found or name_of(path) in OPENS_CONNECTIONS


def test_run_py_stays_short() -> None:
    assert len((REPO / "run.py").read_text(encoding="utf-8").splitlines()) < 80


def test_conf_names_no_code() -> None:
    options = [path for path in (REPO / "conf").rglob("*.yaml") if path.parent.name != "local"]
    assert len(options) > 20
    for path in options:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"_target_|_partial_|_recursive_|!!python|callbacks|oc\.env", text), path.name
        if path.parent.name != "conf":
            assert not re.search(r"^hydra\b|override hydra", text, re.MULTILINE), path.name


COLD_COMMANDS = [
    ["run.py", "--help"],
    ["run.py", "--cfg", "job"],
    ["run.py", "dry_run=true"],
    ["run.py", "experiment=dataset_1000", "dry_run=json"],
    ["-m", "jobs", "--help"],
    ["-m", "jobs", "search", "house"],
    ["-m", "jobs", "verify"],
    ["-m", "jobs", "runs"],
    ["-m", "jobs", "gallery", "--help"],
]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with one row: a job that fails before a model is needed, since its prompt holds a key."""
    folder = tmp_path_factory.mktemp("out")
    prompt = "prompts.lines=[my key is sk-Ab3dE6gH9jK2mN5pQ8sT1vW4xY7zC0]"
    run = subprocess.run(
        [sys.executable, "run.py", prompt, f"output.dir={folder}", "quiet=true", "engine.device=cpu"], cwd=REPO
    )
    assert run.returncode == 3 and list((folder / "manifest" / "parts").iterdir())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", COLD_COMMANDS, ids=" ".join)
def test_cold_things_stay_cold(command: list[str], manifest: Path, tmp_path: Path) -> None:
    where = []
    if "dry_run" in command[-1]:
        where = [f"output.dir={tmp_path / 'out'}"]
    elif {"search", "verify", "runs"} & {*command}:
        where = ["--output-dir", str(manifest)]
    run = subprocess.run(
        [sys.executable, "-X", "importtime", *command, *where], cwd=REPO, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr[-2000:]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in run.stderr.splitlines() if "|" in line}
    assert "pathlib" in imported
    assert not imported & (HEAVY | {"ray", "pandas"})
    assert not (tmp_path / "out").exists()
