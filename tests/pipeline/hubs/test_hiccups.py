"""What goes wrong once is tried again, and who is not to blame is not blamed: the model, its author, the caller."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from hub_civitai import File, Model, Version
from hub_downloads import ensure_downloaded
from hub_huggingface import Repository, git_blob
from hub_protocols import Samples, demo_repository
from hub_server import HubServer, Reply, cut, flip, instead, json_reply, stall

from pipeline.errors import ModelError
from pipeline.hubs.civitai import would_be_refused
from pipeline.hubs.connecting import Pace
from pipeline.hubs.fetch_model import fetch, find_remote
from pipeline.hubs.find_or_fetch import search
from pipeline.hubs.results import Ok
from pipeline.hubs.transport import Transport
from pipeline.hubs.versions import version
from pipeline.registry.database import Registry
from pipeline.registry.queries import list_models
from pipeline.weights.references import parse


@pytest.fixture
def demo(samples: Samples) -> Repository:
    samples.repositories.append(demo_repository())
    return samples.repositories[-1]


@pytest.mark.parametrize("fault", [cut(10), cut(0), stall(-1)], ids=["broken off", "nothing", "silence"])
@pytest.mark.parametrize(
    "place",
    ["/api/models/tiny/demo/.*", ".*/resolve/.*/model_index.json", ".*/resolve/.*/unet/config.json"],
    ids=["metadata", "index", "small file"],
)
def test_one_hiccup_costs_a_second_request(
    place: str, fault: object, demo: Repository, hub: HubServer, transport: Transport, registry: Registry,
    waits: list[float],
) -> None:  # fmt: skip
    transport._pace = Pace(silence_s=0.2)
    hub.fault(place, fault, times=1)  # type: ignore[arg-type]
    assert (ensure_downloaded("hf:tiny/demo", registry, transport) / "model_index.json").is_file()
    assert len(waits) == 1 and waits[0] <= 1.0


def test_one_hiccup_of_civitai_costs_a_second_request(
    ink: Version, hub: HubServer, transport: Transport, registry: Registry, waits: list[float]
) -> None:
    for place in ("/api/v1/models", "/api/v1/model-versions/102"):
        hub.fault(place, cut(1), times=1)
    hub.fault("/api/download/.*", instead(json_reply({}, 503)), times=1)
    assert [hit.reference for hit in search("ink", registry, transport).hits] == ["civitai:102"]
    said = version(transport, 102)
    assert isinstance(said, Ok) and would_be_refused(said.value, transport) is None
    assert isinstance(fetch(said.value, registry, transport), Ok)
    assert len(waits) == 3


def test_a_hub_that_breaks_off_for_ever_is_left_alone_in_the_end(
    demo: Repository, hub: HubServer, transport: Transport, registry: Registry, waits: list[float]
) -> None:
    hub.fault("/api/models/.*", cut(10))
    said = find_remote(transport, parse("hf:tiny/demo"))
    assert said.kind == "offline" and len(hub.requests) == 4 and len(waits) == 3


@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json"])
def test_a_small_file_with_a_wrong_hash_is_fetched_once_more_and_told_with_both(
    name: str, demo: Repository, hub: HubServer, transport: Transport, registry: Registry
) -> None:
    hub.fault(f".*/resolve/.*/{name}", flip(1), times=1)
    assert ensure_downloaded("hf:tiny/demo", registry, transport).is_dir()
    content = bytearray(demo.files[name] + b" ")
    expected = git_blob(bytes(content))
    demo.replace(demo.files | {name: bytes(content)})
    content[1] ^= 1
    hub.fault(f".*/resolve/.*/{name}", flip(1))
    with pytest.raises(ModelError) as caught:
        ensure_downloaded(f"hf:tiny/demo@{demo.commit}", registry, transport)
    assert f"{name} is not what the hub said it is" in str(caught.value)
    assert git_blob(bytes(content)) in str(caught.value) and expected in str(caught.value)
    assert len([path for path in hub.paths() if path.endswith(f"{demo.commit}/{name}")]) == 2
    assert len(list_models(registry)) == 1


def test_the_index_is_fetched_once(demo: Repository, hub: HubServer, transport: Transport, registry: Registry) -> None:
    folder = ensure_downloaded("hf:tiny/demo", registry, transport)
    assert (folder / "model_index.json").read_bytes() == demo.files["model_index.json"]
    assert len([path for path in hub.paths() if path.endswith("/model_index.json")]) == 1


def test_an_index_without_a_hash_is_refused(demo: Repository, hub: HubServer, transport: Transport) -> None:
    def without_hashes(request: object) -> Reply:
        siblings = [{"rfilename": name} for name in demo.files]
        return json_reply({"id": demo.name, "sha": demo.commit, "siblings": siblings})

    hub.route("GET", "/api/models/tiny/demo/.*", without_hashes)
    said = find_remote(transport, parse("hf:tiny/demo"))
    assert said.kind == "refused" and "no hash by which model_index.json could be checked" in said.say()
    assert not [path for path in hub.paths() if "/resolve/" in path]


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(("place", "reference"), [("/storage/.*", "civitai:102"), ("/cdn/.*", "hf:org/lines")])
def test_storage_that_refuses_its_link_is_asked_by_a_new_one_and_is_not_the_hub(
    place: str, reference: str, status: int, samples: Samples, weights: bytes, hub: HubServer, transport: Transport,
    registry: Registry,
) -> None:  # fmt: skip
    """Links to storage hold for some minutes; the hub has given the file."""
    refuses = instead(Reply(status, b"<Error>AccessDenied</Error>", (("Content-Type", "application/xml"),)))
    if reference == "civitai:102":
        samples.models.append(Model(12, "Ink", [Version(102, [File(1002, weights)])], "LORA"))
    else:
        samples.repositories.append(Repository("org/lines", {"lines.safetensors": weights}, tags=("lora",)))
    said = find_remote(transport, parse(reference))
    assert isinstance(said, Ok)
    hub.fault(place, refuses, times=4)
    assert would_be_refused(said.value, transport) is None
    hub.fault(place, refuses, times=4 if reference == "civitai:102" else 0)
    problem = fetch(said.value, registry, transport)
    assert problem.kind == "offline" and "storage" in problem.say() and str(status) in problem.say()
    assert "login" not in problem.say()
    assert isinstance(find_remote(transport, parse(reference)), Ok), "nothing is remembered of it"
    stored = fetch(said.value, registry, transport)  # refused once more, then given
    assert isinstance(stored, Ok) and stored.value.path.read_bytes() == weights


def test_a_token_that_does_not_help_is_said_and_no_other_is_asked_for(
    samples: Samples, weights: bytes, hub: HubServer, connect: Callable[..., Transport], registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    monkeypatch.setenv("CIVITAI_TOKEN", "canary")
    transport = connect(hub.url, allow_token=True)
    samples.repositories.append(Repository("org/gated", {"a.safetensors": weights}, tags=("lora",), gated="auto"))
    samples.models.append(Model(1, "Ink", [Version(101, [File(1, weights)])], "LORA"))
    said = find_remote(transport, parse("hf:org/gated"))
    assert isinstance(said, Ok)
    gated = fetch(said.value, registry, transport)
    assert gated.kind == "gated" and "as the user of the token in HF_TOKEN" in gated.say()
    hub.fault("/api/download/.*", instead(json_reply({"error": "Unauthorized"}, 401)))
    on_civitai = version(transport, 101)
    assert isinstance(on_civitai, Ok)
    login = fetch(on_civitai.value, registry, transport)
    assert login.kind == "needs_login" and "does not take the token in CIVITAI_TOKEN" in login.say()
    hub.fault("/api/models/org/other/.*", instead(json_reply({"error": "Invalid username or password."}, 401)))
    unknown = find_remote(transport, parse("hf:org/other"))
    assert unknown.kind == "not_found" and "does not take the token in HF_TOKEN" in unknown.say()
    for problem in (gated, login, unknown):
        assert "set " not in problem.say() and "allow_token" not in problem.say()


def test_a_file_whose_format_civitai_does_not_tell_is_known_by_its_name_and_content(
    samples: Samples, weights: bytes, transport: Transport, registry: Registry
) -> None:
    files = [File(1, weights, format=None, size=None, fp=None)]
    samples.models.append(Model(1, "Ink", [Version(101, files)], "LORA"))
    assert ensure_downloaded("civitai:101", registry, transport).stem == hashlib.sha256(weights).hexdigest()
