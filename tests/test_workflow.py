"""The workflow for GitHub, which cannot be run here: it is what it says, and may do no more than read."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "tests.yml"

# From "Workflow syntax for GitHub Actions".
WORKFLOW_KEYS = {"name", "run-name", "on", "permissions", "env", "defaults", "concurrency", "jobs"}
JOB_KEYS = {
    *("name", "permissions", "needs", "if", "runs-on", "environment", "concurrency", "outputs", "env", "defaults"),
    *("steps", "timeout-minutes", "strategy", "continue-on-error", "container", "services", "uses", "with", "secrets"),
}
STEP_KEYS = {
    *("id", "if", "name", "uses", "run", "working-directory", "shell", "with", "env"),
    *("continue-on-error", "timeout-minutes"),
}


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    document = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    document["on"] = document.pop(True)  # YAML 1.1 reads the key so
    return dict(document)


def test_it_has_no_key_that_github_does_not_know(workflow: dict[str, Any]) -> None:
    assert set(workflow) <= WORKFLOW_KEYS and {"on", "jobs"} <= set(workflow)
    for job in workflow["jobs"].values():
        assert set(job) <= JOB_KEYS and "runs-on" in job
        assert set(job["strategy"]) <= {"matrix", "fail-fast", "max-parallel"}
        for step in job["steps"]:
            assert set(step) <= STEP_KEYS and ("uses" in step) != ("run" in step)
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "actions/none@v0"))


def test_it_reads_and_does_nothing_else(workflow: dict[str, Any]) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    assert not [job for job in workflow["jobs"].values() if "permissions" in job or "secrets" in job]
    assert "pull_request_target" not in workflow["on"] and "secrets." not in WORKFLOW.read_text(encoding="utf-8")


def test_it_tests_every_system_with_every_python_that_is_promised(workflow: dict[str, Any]) -> None:
    job = workflow["jobs"]["test"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    promised = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"])
    assert promised
    versions = [f"3.{minor}" for minor in range(int(promised[1]), int(promised[2]))]
    assert job["strategy"]["matrix"] == {
        "os": [f"{system}-latest" for system in ("ubuntu", "macos", "windows")],
        "python": versions,
    }
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make test PYTHON=python"]


def test_every_expression_names_something(workflow: dict[str, Any]) -> None:
    known = {"github.ref", *(f"matrix.{name}" for name in workflow["jobs"]["test"]["strategy"]["matrix"])}
    assert set(re.findall(r"\$\{\{ (.*?) \}\}", WORKFLOW.read_text(encoding="utf-8"))) <= known


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="actionlint is not installed")
def test_actionlint_finds_nothing() -> None:
    done = subprocess.run(["actionlint", str(WORKFLOW)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
