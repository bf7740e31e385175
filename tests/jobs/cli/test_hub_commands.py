"""`darkroom models search`, `show`, `download`, `identify` and `privacy` against both hubs, as people call them."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hub_civitai import File, Model, Version
from hub_huggingface import Repository
from hub_protocols import Samples, demo_repository
from hub_server import HubServer, stall
from small_weights import write_lora, write_sidecar

from pipeline.hubs.privacy import FORMS
from pipeline.registry.content import blob_path
from pipeline.registry.store_folders import store_folder
from pipeline.selection.ollama.privacy import REQUESTS

pytestmark = pytest.mark.usefixtures("home")

REPO = Path(__file__).parents[3]
NOBODY = "http://127.0.0.1:9"
"""An address at which nothing answers."""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(darkroom: Run) -> Run:
    return partial(darkroom, "models")


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    return write_lora(tmp_path / "elsewhere" / "lora.safetensors")


@pytest.fixture
def samples(lora: Path) -> Samples:
    """On Hugging Face the demo model and a gated one; on CivitAI a LoRA that can be had and one in early access."""
    weights = lora.read_bytes()
    ink = Version(102, [File(1002, weights, "ink.safetensors")], base_model="SDXL 1.0", words=("ink", "line art"))
    early = Version(104, [File(1004, weights)], early_access_until="2099-01-01")
    gated = Repository("org/ink-gated", {"a.safetensors": weights}, gated="auto", downloads=9_000)
    return Samples(
        [demo_repository(), gated],
        [
            Model(12, "Ink", [ink], type="LORA", description="<p>Steps: 30</p><script>alert(1)</script>"),
            Model(14, "Ink Early", [early], type="LORA"),
        ],
    )


@pytest.fixture
def there(hub: HubServer) -> list[str]:
    """The settings by which a command asks that server."""
    return [f"hub.huggingface_url={hub.url}", f"hub.civitai_url={hub.url}"]


def values(out: str) -> dict[str, str]:
    """The lines `name:   value`."""
    return {match[1]: match[2] for match in re.finditer(r"^([^:\n]+): +(.*)$", out, re.MULTILINE)}


def blobs() -> list[Path]:
    return [path for path in store_folder().rglob("*") if path.is_file()]


def test_search_ranks_by_what_can_be_had_and_marks_the_rest(run: Run, there: list[str], lora: Path) -> None:
    lora.rename(lora.with_name("my-ink.safetensors"))
    run("scan", lora.parent)
    code, out, err = run("search", "ink", *there)
    assert (code, err) == (0, "")
    head, *rows = (re.split(r"  +", line) for line in out.splitlines())
    assert head == ["name", "kind", "family", "size", "where", "reference", "obstacle"]
    assert [(row[0], row[4], *row[6:]) for row in rows[:2]] == [("my-ink", "here"), ("Ink v1.0", "CivitAI")]
    assert {row[0]: row[-1] for row in rows[2:]} == {"Ink Early v1.0": "early access", "ink-gated": "gated"}


def test_search_in_forms_for_programs(run: Run, there: list[str]) -> None:
    found = json.loads(run("search", "ink", "--format", "json", *there)[1])
    assert [one["reference"] for one in found] == ["civitai:102", "civitai:104", "hf:org/ink-gated"]
    assert (found[0]["kind"], found[0]["family"]) == ("lora", "sdxl")
    assert (found[0]["path"], found[0]["obstacle"]) == (None, None)
    assert found[1]["obstacle"] == "early_access" and "until 2099-01-01" in found[1]["obstacle_text"]
    rows = csv.DictReader(io.StringIO(run("search", "ink", "--format", "csv", *there)[1]))
    assert [row["reference"] for row in rows] == [one["reference"] for one in found]
    assert len(json.loads(run("search", "ink", "--limit", "1", "--format", "json", *there)[1])) == 1
    vaes = json.loads(run("search", "ink", "--kind", "vae", "--format", "json", *there)[1])
    assert {one["kind"] for one in vaes} <= {"vae", None}  # of a gated one nothing is known but its name


def test_local_search_and_paths_ask_nobody(run: Run, hub: HubServer, there: list[str], lora: Path) -> None:
    run("scan", lora.parent)
    for options in (["--local"], ["--format", "paths"], ["--local", "--kind", "lora"]):
        code, out, _ = run("search", "lora", *options, *there)
        assert code == 0 and str(lora) in out
    code, out, err = run("search", "ink", "--local", *there)
    assert (code, out) == (0, "") and "with: darkroom models scan FOLDER" in err
    assert hub.requests == []


def test_without_a_network_local_finds_are_printed_and_each_hub_has_one_line(run: Run, lora: Path) -> None:
    run("scan", lora.parent)
    code, out, err = run("search", "lora", f"hub.huggingface_url={NOBODY}", f"hub.civitai_url={NOBODY}")
    assert code == 4 and str(lora) in out
    assert [line.partition(":")[0] for line in err.splitlines()] == ["Hugging Face", "CivitAI"]


def test_what_may_go_well_the_next_time_exits_with_4(run: Run, hub: HubServer, there: list[str]) -> None:
    away = [f"hub.huggingface_url={NOBODY}", f"hub.civitai_url={NOBODY}"]
    for command in (["download", "ink"], ["download", "hf:tiny/demo"], ["download", "ink", "--dry-run"],
                    ["show", "civitai:102"]):  # fmt: skip
        code, out, err = run(*command, *away)
        assert (code, out, err.count("\n")) == (4, "", 1) and "Connection refused" in err, command
    code, _, err = run("download", "nosuch", there[0], away[1])
    assert code == 2 and "Hugging Face: no model has this name" in err


def test_download_tells_where_it_looked_and_how_a_run_names_it(run: Run, hub: HubServer, there: list[str]) -> None:
    code, out, err = run("download", "ink", "--kind", "lora", *there)
    said = values(out)
    assert (code, err) == (0, "")
    assert list(said)[:3] == ["this machine", "Hugging Face", "CivitAI"]
    assert said["this machine"] == "not here" and said["CivitAI"] == "found"
    assert said["reference"] == "civitai:102" and Path(said["path"]).is_file()
    asked = len(hub.requests)
    again = json.loads(run("download", "civitai:102", "--json", *there)[1])
    assert again == {
        "reference": "civitai:102", "path": said["path"], "downloaded": False,
        "tried": [{"where": "this machine", "said": "found"}],
    }  # fmt: skip
    assert values(run("download", "ink", *there)[1])["reference"] == "civitai:102"  # its name is here, too
    assert len(hub.requests) == asked


def test_download_of_a_repository_is_a_folder(run: Run, samples: Samples, there: list[str]) -> None:
    code, out, _ = run("download", "tiny/demo", *there)
    said = values(out)
    assert code == 0 and said["reference"] == f"hf:tiny/demo@{samples.repositories[0].commit}"
    assert (Path(said["path"]) / "model_index.json").is_file()


def test_dry_run_fetches_nothing_and_says_how_much_there_is(run: Run, there: list[str], samples: Samples) -> None:
    code, out, _ = run("download", "hf:tiny/demo", "--dry-run", *there)
    said = values(out)
    plan = json.loads(run("download", "hf:tiny/demo", "--dry-run", "--json", *there)[1])["plan"]
    files = {name: len(content) for name, content in samples.repositories[0].files.items()}
    assert code == 0 and plan["fits"] and plan["bytes"] == sum(files[one["name"]] for one in plan["files"])
    assert all(one["bytes"] == files[one["name"]] and not one["here"] for one in plan["files"])
    assert said["to fetch"].startswith(f"{plan['bytes']:,} bytes") and f"{len(plan['files'])} files" in said["to fetch"]
    assert said["reference"] == plan["reference"] and "free" in said
    assert blobs() == []
    run("download", "hf:tiny/demo", *there)
    here = run("download", "hf:tiny/demo", "--dry-run", *there)[1]
    assert "nothing to download" in values(here)["path"]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("hf:org/ink-gated", "accept conditions"),
        ("civitai:104", "early access until 2099-01-01"),
        ("nosuch", "Hugging Face: no model has this name; CivitAI: no model has this name"),
        ("in", "like it are hf:org/ink-gated"),
        ("hf:org/", "expected hf:org/name"),
        ("https://civitai.com/models/12", "write civitai:12"),
    ],
)
def test_what_cannot_be_had_is_one_line(run: Run, there: list[str], named: str, expected: str) -> None:
    for options in ([], ["--dry-run"]):
        code, out, err = run("download", named, *options, *there)
        assert (code, out, err.count("\n")) == (2, "", 1) and expected in err


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 4), (signal.SIGKILL, -9)])
def test_a_download_that_was_stopped_is_gone_on_with(
    run: Run, hub: HubServer, there: list[str], lora: Path, home: Path, how: signal.Signals, code: int
) -> None:
    import hashlib

    weights = lora.read_bytes()
    target = blob_path(hashlib.sha256(weights).hexdigest(), ".safetensors")
    partial = target.with_name(f"{target.name}.partial")
    half = len(weights) // 2
    hub.fault("/storage/.*", stall(half), times=1)
    command = [sys.executable, "-m", "jobs", "models", "download", "civitai:102", *there]
    with subprocess.Popen(
        command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        ends = time.monotonic() + 60
        while not partial.exists() or partial.stat().st_size < half:
            assert time.monotonic() < ends
            time.sleep(0.01)
        process.send_signal(how)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    if how == signal.SIGINT:
        assert err == "darkroom: stopped; the downloaded part is kept, and the same command resumes\n"
    assert partial.stat().st_size == half and not target.exists()
    dry = values(run("download", "civitai:102", "--dry-run", *there)[1])
    assert dry["to fetch"].startswith(f"{len(weights) - half:,} bytes")
    assert run("download", "civitai:102", *there)[0] == 0
    assert target.read_bytes() == weights
    assert [one.header("Range") for one in hub.requests if "/storage/" in one.path] == [None, f"bytes={half}-"]


def test_show_adds_the_card_that_was_kept(run: Run, hub: HubServer, there: list[str]) -> None:
    run("download", "civitai:102", *there)
    asked = len(hub.requests)
    _, out, _ = run("show", "ink", *there)
    said = values(out)
    assert said["trigger words"] == "ink, line art" and said["settings"] == "steps 30"
    assert said["card"].startswith("CivitAI, 20") and "alert" not in out
    assert [line.partition(":")[0] for line in out.splitlines()].count("trigger words") == 1
    shown = json.loads(run("show", "civitai:102", "--json", *there)[1])
    assert shown["card"]["settings"] == {"steps": "30"} and shown["files"][0]["owned"]
    assert len(hub.requests) == asked


def test_show_asks_for_the_card_anew_only_if_told_to(
    run: Run, hub: HubServer, samples: Samples, there: list[str]
) -> None:
    run("download", "civitai:102", *there)
    samples.models[0].versions[0].words = ("ink", "brush")
    asked = len(hub.requests)
    assert values(run("show", "ink", *there)[1])["trigger words"] == "ink, line art" and len(hub.requests) == asked
    shown = json.loads(run("show", "ink", "--refresh", "--json", *there)[1])
    assert shown["card"]["trigger_words"] == shown["claims"]["trigger_words"] == ["ink", "brush"]
    assert json.loads(run("show", "ink", "--json", *there)[1])["card"] == shown["card"]
    code, _, err = run("show", "ink", "--local", "--refresh", *there)
    assert code == 2 and "leave one of them out" in err


def test_card_that_is_asked_for_fills_the_gaps_of_what_was_scanned_in(
    run: Run, tmp_path: Path, there: list[str]
) -> None:
    """Notes of the user's say more of how a file is used here than its page."""
    file = write_lora(tmp_path / "mine" / "mine.safetensors")
    write_sidecar(file, ".json", {"modelVersionId": 102, "activation text": "brush", "preferred weight": 0.4})
    run("scan", file.parent)
    claims = json.loads(run("show", "mine", "--refresh", "--json", *there)[1])["claims"]
    assert (claims["weight"], claims["trigger_words"], claims["settings"]) == (0.4, ["brush"], {"steps": 30})
    assert json.loads(run("show", "mine", "--local", "--json", *there)[1])["claims"] == claims


def test_show_of_what_is_elsewhere_asks_its_hub_unless_told_not_to(run: Run, hub: HubServer, there: list[str]) -> None:
    code, _, err = run("show", "civitai:102", "--local", *there)
    assert code == 2 and "no such model is known" in err and hub.requests == []
    code, out, err = run("show", "civitai:102", *there)
    assert code == 0 and values(out)["base model"] == "SDXL 1.0"
    assert err == "not on this machine; darkroom models download civitai:102\n"
    assert json.loads(run("show", "civitai:102", "--json", *there)[1])["path"] is None
    code, _, err = run("show", "hf:org/ink-gated", *there)
    assert code == 0 and "accept conditions" in err and "models download" not in err
    code, out, err = run("show", "hf:org/nothing", *there)
    assert (code, out, err.count("\n")) == (2, "", 1) and "there is none, or it is private" in err
    assert blobs() == []


def test_identify_asks_civitai_only_if_told_to_and_only_for_what_is_unknown(
    run: Run, hub: HubServer, there: list[str], lora: Path
) -> None:
    assert run("identify", lora, *there)[0] == 0 and hub.requests == []
    code, out, err = run("identify", lora, "--ask-civitai", *there)
    assert code == 0 and values(out)["reference"] == "civitai:102" and "no known model" in err
    assert any("/by-hash/" in path for path in hub.paths())
    other = write_lora(lora.with_name("other.safetensors"), rank=16)
    code, _, err = run("identify", other, "--ask-civitai", *there)
    assert code == 0 and "CivitAI: sha256:" in err and "there is none" in err
    said = json.loads(run("identify", lora, "--ask-civitai", "--json", *there)[1])
    assert said["civitai"]["reference"] == "civitai:102" and said["civitai_said"] == "ok"
    run("scan", lora.parent)
    asked = len(hub.requests)
    assert "so CivitAI was not asked" in run("identify", lora, "--ask-civitai", *there)[2]
    assert len(hub.requests) == asked


def fits(form: dict[str, Any], path: str, query: set[str]) -> bool:
    """Whether a request is what `privacy` describes so: `<...>` is any part of a path, `[...]` may be missing."""
    described, _, asked = form["path"].replace("[", "").replace("]", "").partition("?")
    parts = [
        ".+" if part in ("<file>", "<repository>") else "[^/]+" if "<" in part else re.escape(part)
        for part in described.split("/")
    ]
    known = {part.partition("=")[0] for part in asked.split("&")} if asked else set()
    return bool(re.fullmatch("/".join(parts), path)) and query <= known


def test_privacy_describes_every_request_that_is_sent(
    run: Run, hub: HubServer, there: list[str], lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    settings = [*there, "hub.allow_token=true"]
    code, out, _ = run("privacy", "--json", *settings)
    told = json.loads(out)
    assert code == 0 and hub.requests == [] and "hf_secret" not in out
    run("search", "ink", *settings)
    run("identify", lora, "--ask-civitai", *settings)
    run("download", "hf:tiny/demo", *settings)
    run("download", "ink", "--kind", "lora", *settings)
    seen: set[str] = set()
    for request in hub.requests:
        headers = dict(request.headers)
        if request.path.startswith(("/cdn/", "/storage/")):  # where the answers lead: never with a token
            assert "Authorization" not in headers
            continue
        headers |= {"Authorization": "Bearer <HF_TOKEN>"} if headers.get("Authorization") == "Bearer hf_secret" else {}
        forms = [
            one
            for one in told["requests"]
            if fits(one, request.path, {*request.query}) and one["headers"] == headers and one["method"] == "GET"
        ]
        assert forms, request.raw
        seen |= {f"{one['hub']}: {one['what']}" for one in forms}
    assert seen == {f"{one['hub']}: {one['what']}" for one in told["requests"]}
    assert len(told["requests"]) == len(FORMS)


def test_privacy_has_what_ollama_is_told(run: Run) -> None:
    _, out, _ = run("privacy")
    assert "Ollama: loading a model; reading a prompt" in out and "request:  POST /api/chat" in out
    assert "to:       http://127.0.0.1:11434: this machine, unless selection.ollama.host" in out
    _, out, _ = run("privacy", "--json")
    assert [(one["method"], one["path"], one["tells"]) for one in json.loads(out)["ollama"]] == [
        (one.method, one.path, one.tells) for one in REQUESTS
    ]


def test_privacy_shows_tokens_and_passwords_by_name_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _, out, _ = run("privacy")
    assert "Authorization" not in out and "User-Agent: darkroom/" in out and "proxy: none" in out
    assert "to:       https://huggingface.co" in out and "hub.allow_token is false" in out
    monkeypatch.setenv("CIVITAI_TOKEN", "civitai-secret")
    _, out, _ = run("privacy", "hub.allow_token=true", "hub.proxy=socks5h://me:pass-word@127.0.0.1:9050")
    assert "Authorization: Bearer <CIVITAI_TOKEN>" in out and "HF_TOKEN is not set" in out
    assert "socks5h://127.0.0.1:9050" in out
    assert not re.search("civitai-secret|pass-word", out)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["download", "ink", "wash"], "wash: expected hub.key=value"),
        (["show", "ink", "hub.proxi=a"], "hub.proxi: unknown key; did you mean 'proxy'?"),
        (["search", "ink", "hub.proxy=tor://x"], "hub.proxy: expected http://"),
        (["privacy", "hub.allow_token=maybe"], "hub.allow_token"),
        (["search", "hub.auto_download=true"], "search: expected words to look for"),
    ],
)
def test_settings_are_checked_as_those_of_a_run(run: Run, arguments: list[str], expected: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith("darkroom: ") and expected in err


def test_what_asks_nobody_imports_nothing_of_the_network(lora: Path) -> None:
    look = (
        "import sys; from jobs.cli import entry; sys.argv = ['darkroom', 'models', 'search', 'ink', '--local']; "
        "entry.main(); print({'httpcore2', 'tqdm', 'torch', 'hydra', 'numpy', 'duckdb'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", look], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
