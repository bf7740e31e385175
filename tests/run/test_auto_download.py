"""What a batch needs and is not here: told with the command, looked up by a dry run, fetched before the first job."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_civitai import File, Model, Version
from hub_huggingface import Repository
from hub_protocols import Samples, demo_repository
from hub_server import FILES, HubServer, slow
from hub_weights import sha256, weights
from running import Batch

from jobs.running import main as batches
from jobs.running.main import main
from pipeline.hubs.downloading import SPARE_BYTES
from pipeline.hubs.fetch_model import DownloadPlan
from pipeline.weights.references import EMBEDDED

pytestmark = pytest.mark.usefixtures("home")

NOWHERE = "http://127.0.0.1:1"
UNET = "unet/diffusion_pytorch_model.safetensors"
UNET_SHA256 = sha256((EMBEDDED["demo"] / UNET).read_bytes())
TOO_MANY_LAYERS = "sampling.clip_skip=12"
"""A fault that shows only when the model is here: the run then ends before anything heavy is imported."""


@pytest.fixture
def samples() -> Samples:
    """The embedded model, a LoRA that can be had, one that asks for a login, and a gated model."""
    loras = [weights(200_000, seed) for seed in (1, 2)]
    return Samples(
        [demo_repository(), Repository("tiny/gated", {"model.safetensors": weights(1000)}, gated="auto")],
        [
            Model(12, "Ink", [Version(102, [File(1002, loras[0])])], type="LORA"),
            Model(13, "Shut", [Version(103, [File(1003, loras[1])], login=True)], type="LORA"),
        ],
    )


@pytest.fixture
def config(hub: HubServer, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A configuration that names the embedded model as a repository."""

    def make(source: str = "hf:tiny/demo", auto: bool = True, **more: Any) -> dict[str, Any]:
        return {
            "prompts": {"lines": ["a house"]},
            "model": {"source": source, **more.pop("model", {})},
            "memory": {"level": "none"},
            "engine": {"device": "cpu"},
            "output": {"dir": str(tmp_path / "out")},
            "hub": {"auto_download": auto, "huggingface_url": hub.url, "civitai_url": hub.url},
            **more,
        }

    return make


@pytest.fixture
def run_batch(make_batch: Callable[..., Batch], hub: HubServer) -> Callable[..., Batch]:
    """The same as a user runs it."""

    def make(*overrides: str, out: str = "out") -> Batch:
        hubs = (f"hub.huggingface_url={hub.url}", f"hub.civitai_url={hub.url}", "hub.auto_download=true")
        size = ("sampling.width=64", "sampling.height=64")
        return make_batch(["a red house"], *hubs, *size, *overrides, model="hf:tiny/demo", out=out)

    return make


def fetched(home: Path) -> list[Path]:
    """Whole files in the store."""
    return [path for path in (home / "models" / "blobs").glob("??/*") if path.suffix != ".partial"]


def partial(home: Path) -> Path:
    """Where the largest file grows."""
    return home / "models" / "blobs" / UNET_SHA256[:2] / f"{UNET_SHA256}.safetensors.partial"


def until(look: Callable[[], Any], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


LORAS = {
    "adapters.loras": [
        [],
        [{"source": "civitai:102"}],
        [{"source": "civitai:103"}, {"source": "sha256:" + "0" * 64}],
    ]
}


def test_all_that_is_not_here_is_told_at_once_and_nobody_is_asked(
    config: Callable[..., Any], hub: HubServer, home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    adapters = {
        "controlnets": [{"source": "hf:org/canny", "image": "a.png"}],
        "ip_adapters": [{"source": "hf:org/ip/a.safetensors", "image": "a.png", "encoder": "hf:org/ip/encoder"}],
        "embeddings": [{"source": "civitai:7"}],
    }
    parts = {"vae": "hf:org/vae", "config": "hf:org/whole"}
    memory = {"level": "none", "tiny_vae": "hf:org/taesd"}
    one = config(auto=False, model=parts, memory=memory, adapters=adapters, grid=LORAS)
    assert main([one, config("civitai:101", auto=False), one], []) == 2
    out, err = capfd.readouterr()
    said = [line.partition(": not on this machine")[0] for line in err.splitlines()]
    assert said[:3] == ["model 'hf:tiny/demo'", "vae 'hf:org/vae'", "tiny VAE 'hf:org/taesd'"]
    assert sorted(said[3:-2] + said[-1:]) == sorted([
        "model.config 'hf:org/whole'",
        "adapters.embeddings[0]: embedding 'civitai:7'",
        "adapters.controlnets[0]: controlnet 'hf:org/canny'",
        "adapters.ip_adapters[0]: ip-adapter 'hf:org/ip/a.safetensors'",
        "adapters.ip_adapters[0]: image encoder 'hf:org/ip/encoder'",
        "adapters.loras[0]: lora 'civitai:102'",
        "adapters.loras[0]: lora 'civitai:103'",
        "model 'civitai:101'",
    ])  # fmt: skip
    assert said[-2].startswith("adapters.loras[1]: lora 'sha256:000") and len(said) == 12
    assert "darkroom models download hf:org/whole/model_index.json (" in err  # and no weights with it
    assert out == "" and hub.requests == [] and not home.exists() and not (tmp_path / "out").exists()


def test_what_the_grid_replaces_is_not_needed(config: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    adapters = {"loras": [{"source": "civitai:1"}, {"source": "civitai:2"}]}
    grid = {"adapters.loras.0.source": ["civitai:3", "civitai:4"]}
    assert main([config(auto=False, adapters=adapters, grid=grid)], []) == 2
    err = capfd.readouterr().err
    assert [number for number in range(1, 5) if f"'civitai:{number}'" in err] == [2, 3, 4]


def test_other_faults_are_told_before_anything_is_fetched(
    config: Callable[..., Any], hub: HubServer, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = config(prompts={"file": "none.txt"}, grid={"sampling.stepz": [1]}, memory={"level": "auto"})
    assert main([wrong], []) == 2
    err = capfd.readouterr().err
    assert "none.txt" in err and "stepz" in err and "hf:tiny/demo" not in err and hub.requests == []


def test_a_plain_name_is_never_looked_for_on_a_hub(
    config: Callable[..., Any], hub: HubServer, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([config("ink-wash")], []) == 2
    assert "darkroom models download ink-wash" in capfd.readouterr().err and hub.requests == []


@pytest.mark.slow
def test_dry_run_tells_sizes_room_time_and_refusals_and_fetches_nothing(
    config: Callable[..., Any], hub: HubServer, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    configs = [config(grid=LORAS, dry_run="json"), config("hf:tiny/gated", dry_run="json")]
    assert main(configs, []) == 0
    said = json.loads(capfd.readouterr().out)
    by_reference = {one["reference"]: one for one in said["missing"]}
    weights_of_demo = [path for path in EMBEDDED["demo"].rglob("*") if path.suffix in (".safetensors", ".json", ".txt")]
    assert by_reference["hf:tiny/demo"]["files"] == len(weights_of_demo)
    assert by_reference["hf:tiny/demo"]["bytes"] == sum(path.stat().st_size for path in weights_of_demo)
    assert by_reference["civitai:102"]["problem"] is None and by_reference["civitai:102"]["what"] == "lora"
    assert "asks for a login" in by_reference["civitai:103"]["problem"]
    assert "asks to accept conditions" in by_reference["hf:tiny/gated"]["problem"]
    assert "there is none" in by_reference["sha256:" + "0" * 64]["problem"]
    total = said["download"]
    assert total["bytes"] == sum(one["bytes"] or 0 for one in said["missing"])
    assert total["fits"] is True and total["measured"] is False and total["seconds"] > 0
    assert "requested" not in said and fetched(home) == [] and not partial(home).exists()
    assert main([{**config(), "dry_run": True}], []) == 0
    out = capfd.readouterr().out
    assert "to fetch" in out and "hf:tiny/demo" in out and "assumed: none was measured" in out and "B free" in out


def test_dry_run_without_leave_asks_no_hub_and_keeps_the_plan(
    config: Callable[..., Any], hub: HubServer, capfd: pytest.CaptureFixture[str]
) -> None:
    flux = {"family": "flux"}
    adapters = {"loras": [{"source": "civitai:102"}]}
    assert main([config("hf:org/flux", auto=False, model=flux, adapters=adapters, dry_run=True)], []) == 0
    out = capfd.readouterr().out
    assert "memory, by estimate" in out and "requested     1" in out
    assert "darkroom models download hf:org/flux" in out and "darkroom models download civitai:102" in out
    assert hub.requests == []
    assert main([config("hf:org/flux", auto=False, model=flux, dry_run="json")], []) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["memory"] and said["download"] is None
    assert said["missing"] == [
        {"reference": "hf:org/flux", "what": "model", "files": None, "bytes": None, "problem": None}
    ]
    assert main([config(auto=False, dry_run=True)], []) == 2  # of what family it is nobody has said
    assert "fetch it with" in capfd.readouterr().err and hub.requests == []


def test_dry_run_of_a_known_family_has_plan_and_download(
    config: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([config(model={"family": "sd15"}, dry_run="json")], []) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["to_make"] == 1 and said["memory"] and said["download"]["bytes"] > 10e6


def test_room_is_needed_for_the_sum(
    config: Callable[..., Any],
    hub: HubServer,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    demo = sum(path.stat().st_size for path in EMBEDDED["demo"].rglob("*.safetensors"))
    room = SPARE_BYTES + demo + 100_000  # enough for the model and for the LoRA, not for both
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=room))
    assert main([config(adapters={"loras": [{"source": "civitai:102"}]})], []) == 2
    err = capfd.readouterr().err
    assert "must be downloaded: only" in err and "DARKROOM_HOME" in err and err.count("\n") == 1
    assert fetched(home) == []


@pytest.mark.slow
def test_one_that_cannot_be_had_keeps_the_others_from_being_fetched(
    config: Callable[..., Any], home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([config(grid=LORAS)], []) == 2
    err = capfd.readouterr().err.splitlines()
    assert len(err) == 2 and "lora civitai:103: its author asks for a login" in err[0] and "sha256:000" in err[1]
    assert fetched(home) == []


def test_a_hub_out_of_reach_may_be_there_the_next_time(
    config: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    away = {"auto_download": True, "huggingface_url": NOWHERE, "civitai_url": NOWHERE}
    assert main([{**config(), "hub": away}], []) == 4
    err = capfd.readouterr().err
    assert err.startswith("model hf:tiny/demo: ") and err.count("\n") == 1
    assert main([{**config(), "hub": away, "dry_run": True}], []) == 0
    assert "what is on this machine can still be used" in capfd.readouterr().out


def test_what_is_fetched_is_planned_with_and_asks_nobody_again(
    config: Callable[..., Any], hub: HubServer, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([config(sampling={"clip_skip": 12})], []) == 2
    err = capfd.readouterr().err.splitlines()
    assert err[0].startswith("fetching hf:tiny/demo@") and "sampling.clip_skip: must be at most" in err[1]
    assert len(fetched(home)) > 5 and not partial(home).exists()
    hub.requests.clear()
    assert main([config(dry_run="json", auto=auto) for auto in (True, True)], []) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["requested"] == 2 and said["missing"] == [] and hub.requests == []
    # From now on it is known how fast downloads are here.
    assert main([config("hf:tiny/gated", dry_run="json")], []) == 0
    assert json.loads(capfd.readouterr().out)["download"]["measured"] is True


def test_quiet_says_nothing_while_fetching(config: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert main([config(sampling={"clip_skip": 12}, quiet=True)], []) == 2
    assert capfd.readouterr().err.startswith("sampling.clip_skip")


@pytest.mark.slow
def test_a_lone_denoiser_takes_the_weights_that_it_lacks_from_its_configuration(
    config: Callable[..., Any], hub: HubServer, samples: Samples, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    samples.repositories.append(Repository("tiny/unet", {"unet.safetensors": (EMBEDDED["demo"] / UNET).read_bytes()}))
    lone = config("hf:tiny/unet", model={"config": "hf:tiny/demo"}, sampling={"clip_skip": 12})
    assert main([lone], []) == 2
    said = capfd.readouterr().err.splitlines()
    assert [line.partition("@")[0] for line in said[:3]] == [
        "fetching hf:tiny/unet", "fetching hf:tiny/demo", "fetching hf:tiny/demo",
    ]  # fmt: skip
    assert "/model_index.json: " in said[1] and "/model_index.json: " not in said[2]
    assert said[3].startswith("sampling.clip_skip")


def test_what_is_not_here_any_more_after_fetching_ends_the_run(
    config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As when another program deletes it: the run does not fetch it again and again."""
    monkeypatch.setattr(batches, "fetch", lambda needs, config: None)
    assert main([config()], []) == 2
    assert capfd.readouterr().err.startswith("model 'hf:tiny/demo': not on this machine")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_half_way_is_one_line_and_leaves_what_has_come(
    run_batch: Callable[..., Batch], hub: HubServer, home: Path, number: signal.Signals
) -> None:
    hub.fault(FILES, slow(2e6))
    run = run_batch().start()
    run.until(lambda: partial(home).exists() and partial(home).stat().st_size > 200_000)
    run.signal(number)
    ended = run.wait()
    assert ended.code == 4
    assert ended.err.splitlines()[1:] == [
        "stopped while models were being fetched; the downloaded part is kept, and the same command resumes"
    ]
    assert partial(home).stat().st_size > 200_000 and not partial(home).with_suffix("").exists()


@pytest.mark.slow
def test_of_two_runs_one_fetches_and_the_other_waits_and_says_so(
    run_batch: Callable[..., Batch], hub: HubServer, home: Path
) -> None:
    hub.fault(f"/cdn/{UNET_SHA256}", slow(3e6))  # longer than a wait that is not told
    first = run_batch(TOO_MANY_LAYERS, out="one").start()
    first.until(lambda: partial(home).exists() and partial(home).stat().st_size)
    second = run_batch(TOO_MANY_LAYERS, out="two").start()
    ended = [first.wait(), second.wait()]
    assert all("sampling.clip_skip: must be at most" in one.err for one in ended)  # both have it
    assert "another process is fetching it; waiting for that" in ended[1].err
    assert hub.paths().count(f"/cdn/{UNET_SHA256}") == 1


@pytest.mark.slow
def test_a_run_fetches_what_it_lacks_and_makes_its_picture(run_batch: Callable[..., Batch], home: Path) -> None:
    batch = run_batch()
    ended = batch.run()
    assert ended.code == 0, ended.err
    batch.assert_whole(1)
    assert ended.err.startswith("fetching hf:tiny/demo@") and len(fetched(home)) > 5


def test_what_is_missing_is_fetched_from_any_thread(
    config: Callable[..., Any], home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []
    batch = config("hf:tiny/demo", sampling={"clip_skip": 12})
    thread = threading.Thread(target=lambda: codes.append(main([batch], [])))
    thread.start()
    thread.join()
    assert codes == [2] and "clip_skip" in capfd.readouterr().err and len(fetched(home)) > 5


def test_a_dry_run_of_what_cannot_be_had_says_why_and_no_sum(
    config: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([config("hf:tiny/gated", dry_run=True)], []) == 0
    out = capfd.readouterr().out
    assert (
        out.startswith("to fetch      nothing that can be downloaded\n  model hf:tiny/gated: ") and "0 files" not in out
    )


@pytest.mark.slow
def test_killed_resumed_made_and_made_again_without_a_network(
    run_batch: Callable[..., Batch], hub: HubServer, home: Path
) -> None:
    batch = run_batch()
    hub.fault(FILES, slow(2e6), times=4)
    run = batch.start()
    run.until(lambda: partial(home).exists() and partial(home).stat().st_size > 300_000)
    run.process.kill()
    assert run.wait().code == -signal.SIGKILL
    there = partial(home).stat().st_size
    assert 300_000 < there < (EMBEDDED["demo"] / UNET).stat().st_size and batch.images() == set()
    hub.requests.clear()

    again = batch.run()
    assert again.code == 0, again.err
    (request,) = [one for one in hub.requests if one.path == f"/cdn/{UNET_SHA256}"]
    assert request.header("Range") == f"bytes={there}-"
    batch.assert_whole(1)
    assert batch.rows()[0]["model"] == "demo"
    report = next((batch.output_dir / "runs").glob("*/batch.yaml")).read_text()
    assert hub.url not in report and "hub" not in report.split()
    log = next((batch.output_dir / "runs").glob("*/run.log")).read_text()  # also of what was before the run's folder
    assert " INFO fetched hf:" in log and hub.url not in log

    hub.requests.clear()
    offline = batch.run("seeds=1", f"hub.huggingface_url={NOWHERE}")
    assert offline.code == 0, offline.err
    batch.assert_whole(2)
    assert hub.requests == []


def test_what_an_earlier_download_has_left_needs_no_room(home: Path, samples: Samples, hub: HubServer) -> None:
    from pipeline.hubs.find_or_fetch import plan_download
    from pipeline.hubs.hub_settings import HubSettings
    from pipeline.hubs.results import Ok
    from pipeline.hubs.transport import Transport

    def planned() -> DownloadPlan:
        transport = Transport(HubSettings(huggingface_url=hub.url, civitai_url=hub.url))
        said = plan_download("hf:tiny/demo", transport)
        assert isinstance(said, Ok) and isinstance(said.value, DownloadPlan)
        return said.value

    before = planned().bytes
    partial(home).parent.mkdir(parents=True)
    partial(home).write_bytes(bytes(1000))
    assert planned().bytes == before - 1000
