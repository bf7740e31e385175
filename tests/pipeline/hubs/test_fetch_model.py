"""From a hub into the store and the registry."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from hub_civitai import File, Model, Version
from hub_downloads import ensure_downloaded
from hub_huggingface import Repository
from hub_protocols import Samples, below, pipeline_repository
from hub_server import HubServer, cut, flip, instead, json_reply, stall
from small_weights import write_lora

from pipeline.adapters.find_weights import find as find_adapter
from pipeline.errors import DownloadError, ModelError
from pipeline.hubs.cards import card
from pipeline.hubs.downloading import SPARE_BYTES
from pipeline.hubs.fetch_model import fetch, find_remote, plan
from pipeline.hubs.results import Ok
from pipeline.hubs.transport import Transport
from pipeline.registry.database import Registry
from pipeline.registry.leftovers import leftovers
from pipeline.registry.model_settings import identify
from pipeline.registry.queries import find, list_models
from pipeline.registry.records import ModelCard
from pipeline.registry.resolve import resolve
from pipeline.registry.store_folders import store_folder
from pipeline.registry.stored_cards import card_of
from pipeline.registry.storing import files_of
from pipeline.registry.upkeep import verify
from pipeline.system.units import size_text
from pipeline.weights.inspection import inspect_model
from pipeline.weights.references import EMBEDDED, EMBEDDED_DEFAULTS, parse


@pytest.fixture
def demo(samples: Samples) -> Repository:
    """The embedded model as a repository, with what repositories have beside it."""
    files = {name: content for name, content in below(EMBEDDED["demo"]).items() if not name.endswith((".py", ".pyc"))}
    one = pipeline_repository("org/demo", files, "StableDiffusionPipeline")
    samples.repositories.append(one)
    return one


@pytest.fixture
def lora(samples: Samples, weights: bytes) -> Repository:
    """A LoRA in a repository."""
    one = Repository(
        "org/ink-lora", {"pytorch_lora_weights.safetensors": weights, "README.md": b"# Ink"}, tags=("lora",)
    )
    samples.repositories.append(one)
    return one


def test_a_diffusers_repository_comes_whole_and_is_known_offline(
    demo: Repository, hub: HubServer, transport: Transport, registry: Registry
) -> None:
    path = ensure_downloaded("hf:org/demo", registry, transport)
    assert inspect_model(path).pipeline_class == inspect_model(EMBEDDED["demo"]).pipeline_class
    got = below(path)
    assert got.items() <= demo.files.items()
    assert not [name for name in got if name.endswith((".py", ".bin", ".md"))] and "single_file.safetensors" not in got
    (model,) = list_models(registry)
    assert (model.reference, model.source) == (f"hf:org/demo@{demo.commit}", "huggingface")
    assert (model.kind, model.revision, model.branches, model.licence) == ("checkpoint", demo.commit, ("main",), "mit")
    assert model.bytes == sum(map(len, got.values()))
    assert {checked.state for checked in verify(registry)} == {"ok"}

    asked = len(hub.requests)
    for reference in ("hf:org/demo", "hf:org/demo@main", f"hf:org/demo@{demo.commit}", "demo", "org/demo"):
        assert ensure_downloaded(reference, registry, transport, noun="any") == path
        assert resolve(reference, "any") == path
    assert len(hub.requests) == asked, "what is here asks nobody"


def test_a_file_of_a_repository_lies_in_the_store_under_its_hash(
    lora: Repository, weights: bytes, transport: Transport, registry: Registry
) -> None:
    path = ensure_downloaded("hf:org/ink-lora", registry, transport, noun="lora")
    assert path.name == f"{hashlib.sha256(weights).hexdigest()}.safetensors" and path.read_bytes() == weights
    (model,) = find(registry, "ink-lora")
    assert (model.kind, model.family, model.reference) == (
        "lora", "sdxl", f"hf:org/ink-lora@{lora.commit}/pytorch_lora_weights.safetensors",
    )  # fmt: skip
    (file,) = files_of(registry, model)
    assert file.owned and file.sha256 == hashlib.sha256(weights).hexdigest()
    assert resolve("hf:org/ink-lora", "lora") == path


def test_a_version_of_civitai_is_known_with_all_that_it_was_said_to_be(
    ink: Version, transport: Transport, registry: Registry
) -> None:
    path = ensure_downloaded("civitai:102", registry, transport, noun="lora")
    (model,) = list_models(registry)
    assert (model.source, model.reference, model.version_id, model.model_id) == ("civitai", "civitai:102", 102, 12)
    assert (model.trigger_words, model.tags) == (("ink", "line art"), ("style",))
    assert (model.base_model, model.licence, model.family) == ("SDXL 1.0", "credit to the author", "sdxl")
    for reference in ("civitai:102", "civitai:12", "Ink v1.0", "ink", f"sha256:{path.stem}"):
        assert resolve(reference, "lora") == path


def test_what_the_hub_says_of_a_model_is_kept_with_it(
    lora: Repository, ink: Version, samples: Samples, hub: HubServer, transport: Transport, registry: Registry
) -> None:
    ink.description = "<p>Soft ink. Weight: 0.7</p>"
    ink.images = ({"meta": {"prompt": "ink, a heron", "steps": 24, "sampler": "Euler a"}},)
    samples.models[0].downloads = 321
    lora.card = {"instance_prompt": "a TOK bird", "widget": [{"text": "a TOK owl", "output": {"url": "x.png"}}, 5]}
    for reference in ("civitai:102", "hf:org/ink-lora"):
        ensure_downloaded(reference, registry, transport, noun="lora")
    (of_version,) = find(registry, "civitai:102")
    assert card_of(registry, of_version) == ModelCard(
        title="Ink v1.0",
        description="Soft ink. Weight: 0.7",
        base_model="SDXL 1.0",
        licence="credit to the author",
        tags=("style",),
        trigger_words=("ink", "line art"),
        example_prompts=("ink, a heron",),
        weight=0.7,
        settings=(("steps", 24), ("scheduler", "Euler a")),
        downloads=321,
    )
    (of_repository,) = find(registry, "hf:org/ink-lora")
    card = card_of(registry, of_repository)
    assert (card.description, card.trigger_words, card.example_prompts) == ("# Ink", ("a TOK bird",), ("a TOK owl",))


def test_without_the_hubs_card_a_fetched_model_keeps_what_its_header_says(
    samples: Samples, tmp_path: Path, hub: HubServer, transport: Transport, registry: Registry
) -> None:
    table = {"ss_tag_frequency": json.dumps({"1_ink": {"heron": 7}})}
    file = write_lora(tmp_path / "ink.safetensors", metadata=table)
    samples.repositories.append(Repository("org/ink", {"ink.safetensors": file.read_bytes()}, tags=("lora",)))
    hub.fault(".*/README.md", instead(json_reply({}, 503)))
    ensure_downloaded("hf:org/ink", registry, transport, noun="lora")
    (model,) = find(registry, "hf:org/ink")
    assert card_of(registry, model).tag_counts == (("heron", 7),)


def test_a_plan_tells_files_and_bytes_and_fetches_nothing(
    demo: Repository, hub: HubServer, transport: Transport, registry: Registry
) -> None:
    said = find_remote(transport, parse("hf:org/demo"))
    assert isinstance(said, Ok)
    planned = plan(said.value)
    needed = {file.name for file in said.value.files}
    assert planned.bytes == sum(len(demo.files[name]) for name in needed) and planned.fits
    assert not store_folder().exists() and not [path for path in hub.paths() if path.startswith("/cdn")]
    assert isinstance(fetch(said.value, registry, transport), Ok)
    assert not [file for file in plan(said.value).missing if file.name.endswith(".safetensors")]


@pytest.mark.parametrize(("missing", "fits"), [(1, False), (0, True)])
def test_room_is_judged_by_one_measure_in_plan_and_download(
    missing: int, fits: bool, ink: Version, hub: HubServer, transport: Transport, registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    usage, size = shutil.disk_usage("/"), len(ink.files[0].content)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=SPARE_BYTES + size - missing))
    said = find_remote(transport, parse("civitai:102"))
    assert isinstance(said, Ok) and plan(said.value).fits == fits
    if fits:
        assert ensure_downloaded("civitai:102", registry, transport).is_file()
        return
    with pytest.raises(DownloadError, match=f"{size_text(size)} must be downloaded and {size_text(size - 1)} are free"):
        ensure_downloaded("civitai:102", registry, transport)
    assert not [path for path in hub.paths() if path.startswith("/api/download")]


def test_what_a_repository_holds_twice_is_counted_once(
    demo: Repository, hub: HubServer, transport: Transport, registry: Registry
) -> None:
    weights = "vae/diffusion_pytorch_model.safetensors"
    copied = {name: demo.files[weights] for name in demo.files if name.endswith("pytorch_model.safetensors")}
    demo.replace(demo.files | copied)
    said = find_remote(transport, parse("hf:org/demo"))
    assert isinstance(said, Ok)
    chosen = {demo.files[file.name] for file in said.value.files}
    assert plan(said.value).bytes == sum(map(len, chosen))


def test_a_small_file_that_is_not_what_the_hub_said_is_refused(
    demo: Repository, hub: HubServer, transport: Transport, registry: Registry
) -> None:
    hub.fault(r"/org/demo/resolve/.*/unet/config\.json", flip(1))
    said = find_remote(transport, parse("hf:org/demo"))
    assert isinstance(said, Ok)
    refused = fetch(said.value, registry, transport)
    assert refused.kind == "refused" and "unet/config.json is not what the hub said" in refused.say()
    assert list_models(registry) == []


def test_a_store_that_cannot_be_written_is_said(demo: Repository, transport: Transport, registry: Registry) -> None:
    said = find_remote(transport, parse("hf:org/demo"))
    assert isinstance(said, Ok)
    store_folder().write_text("in the way")
    with pytest.raises(DownloadError, match=r"hf:org/demo@.* cannot be written to .* DARKROOM_HOME"):
        fetch(said.value, registry, transport)


def test_the_card_of_what_was_fetched_is_there_without_a_network(
    demo: Repository, hub: HubServer, transport: Transport, registry: Registry
) -> None:
    ensure_downloaded("hf:org/demo", registry, transport)
    hub.fault(".*", instead(json_reply({}, 503)))
    for reference in ("hf:org/demo", f"hf:org/demo@{demo.commit}"):
        said = card(transport, parse(reference))
        assert isinstance(said, Ok)
        steps, guidance_scale = EMBEDDED_DEFAULTS["demo"]
        assert said.value.settings == {"steps": str(steps), "guidance_scale": f"{guidance_scale:g}"}


def test_a_gate_that_shows_only_at_the_file(lora: Repository, transport: Transport, registry: Registry) -> None:
    said = find_remote(transport, parse("hf:org/ink-lora"))
    lora.gated = "auto"
    assert isinstance(said, Ok)
    assert fetch(said.value, registry, transport).kind == "gated"
    assert list_models(registry) == []


def test_a_download_that_broke_off_goes_on(
    ink: Version, weights: bytes, hub: HubServer, transport: Transport, registry: Registry
) -> None:
    hub.fault("/storage/.*", cut(1000), times=1)
    hub.fault("/storage/.*", cut(0), times=4)
    with pytest.raises(DownloadError, match="1,000 bytes are kept"):
        ensure_downloaded("civitai:102", registry, transport)
    assert list_models(registry) == []
    path = ensure_downloaded("civitai:102", registry, transport)
    assert path.read_bytes() == weights
    assert hub.requests[-1].header("Range") == "bytes=1000-"


def test_the_same_content_is_fetched_from_where_else_it_is_known(
    lora: Repository, ink: Version, weights: bytes, hub: HubServer, transport: Transport, registry: Registry
) -> None:
    path = ensure_downloaded("civitai:102", registry, transport)
    path.unlink()
    hub.fault("/cdn/.*", instead(json_reply({"error": "gone"}, 410)))
    assert ensure_downloaded("hf:org/ink-lora", registry, transport) == path
    assert path.read_bytes() == weights
    asked = [path for path in hub.paths() if not path.endswith("README.md")]
    assert [path.split("/")[1] for path in asked[-3:]] == ["cdn", "api", "storage"]


def test_two_models_with_the_same_content_share_one_copy(
    lora: Repository, ink: Version, hub: HubServer, transport: Transport, registry: Registry
) -> None:
    first = ensure_downloaded("hf:org/ink-lora", registry, transport)
    assert ensure_downloaded("civitai:102", registry, transport) == first
    assert {model.reference.partition(":")[0] for model in list_models(registry)} == {"hf", "civitai"}
    assert not [path for path in hub.paths() if path.startswith("/storage")]


LARGE = 2**20
"""More than the header of any of these, and more than the tests let a hub send."""


def test_weights_of_no_known_kind_are_refused_by_their_header_and_leave_nothing(
    samples: Samples, tmp_path: Path, hub: HubServer, transport: Transport, registry: Registry
) -> None:
    from published_weights import write_header

    strange = write_header(tmp_path / "strange.safetensors", {"some.thing": (4, LARGE), "else": (2,)}).read_bytes()
    samples.models.append(Model(5, "Strange", [Version(50, [File(1, strange)], base_model="New 9")]))
    hub.fault("/storage/.*", stall(LARGE))
    with pytest.raises(ModelError, match=r"^civitai:50: cannot be used: is of no family"):
        ensure_downloaded("civitai:50", registry, transport)
    assert list_models(registry) == [] and leftovers(registry) == []
    assert len([path for path in hub.paths() if path.startswith("/storage")]) == 2, "once more: it may be damaged"


def test_damage_in_a_header_is_fetched_once_more(
    lora: Repository, hub: HubServer, weights: bytes, transport: Transport, registry: Registry
) -> None:
    name = weights.index(b"lora_unet")
    hub.fault("/cdn/.*", flip(name), times=1)
    assert ensure_downloaded("hf:org/ink-lora", registry, transport).read_bytes() == weights


def test_components_that_are_nothing_by_themselves_are_refused_by_their_header(
    samples: Samples, tmp_path: Path, hub: HubServer, transport: Transport, registry: Registry
) -> None:
    from published_weights import write_header

    encoder = {"shared.weight": (1024, 1024), "encoder.block.0.layer.0.SelfAttention.q.weight": (64, 1024)}
    weights = write_header(tmp_path / "model.safetensors", encoder).read_bytes()
    files = {"config.json": b'{"architectures": ["T5EncoderModel"]}', "model.safetensors": weights}
    samples.repositories.append(Repository("org/t5", files, tags=()))
    hub.fault("/cdn/.*", stall(LARGE))
    with pytest.raises(ModelError, match=r"^hf:org/t5@\w+: cannot be used: .*not used by itself"):
        ensure_downloaded("hf:org/t5", registry, transport)
    assert not [one for one in leftovers(registry) if one.bytes >= LARGE]


def in_parts(folder: Path, parts: dict[str, dict[str, tuple[int, ...]]], **config: object) -> dict[str, bytes]:
    """The files of a component whose weights are in several files, with their index."""
    from published_weights import write_header

    index = {tensor: name for name, shapes in parts.items() for tensor in shapes}
    weights = {name: write_header(folder / name, shapes).read_bytes() for name, shapes in parts.items()}
    return {
        "config.json": json.dumps(config).encode(),
        "diffusion_pytorch_model.safetensors.index.json": json.dumps({"weight_map": index}).encode(),
        **weights,
    }


PARTS = [f"diffusion_pytorch_model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]


@pytest.mark.parametrize("what", ["of no kind", "not as its index says", "with an unsound header"])
def test_weights_in_parts_are_refused_by_their_headers(
    samples: Samples, tmp_path: Path, hub: HubServer, transport: Transport, registry: Registry, what: str
) -> None:
    strange = {name: {f"some.{name[24:29]}": (4, LARGE)} for name in PARTS}
    files = in_parts(tmp_path, strange, _class_name="Strange")
    fault = "is of no family"
    if what == "not as its index says":
        files[PARTS[0]], files[PARTS[1]] = files[PARTS[1]], files[PARTS[0]]
        fault = rf"{PARTS[0]} lacks the tensor"
    if what == "with an unsound header":
        files[PARTS[2]] = files[PARTS[2]].replace(b"[0, ", b"[8, ")
        fault = "header is damaged"
    samples.repositories.append(Repository("org/parts", files, tags=()))
    hub.fault("/cdn/.*", stall(LARGE))
    with pytest.raises((ModelError, DownloadError), match=fault):
        ensure_downloaded("hf:org/parts", registry, transport)
    assert list_models(registry) == []
    asked = [path for path in hub.paths() if path.startswith("/cdn")]
    assert len(asked) <= 2 * len(PARTS), "once more: it may be damaged"
    if what != "with an unsound header":  # the others may be sound, and the same command would go on with them
        assert not [one for one in leftovers(registry) if one.path.suffix == ".partial"]


def test_weights_in_parts_come_whole_and_are_gone_on_with(
    samples: Samples, hub: HubServer, transport: Transport, registry: Registry
) -> None:
    from safetensors.torch import load, save

    vae = dict(below(EMBEDDED["demo"] / "vae"))
    (name,) = (name for name in vae if name.endswith(".safetensors"))
    tensors = load(vae.pop(name))
    names = list(tensors)
    thirds = [names[start::3] for start in range(3)]
    for part, third in zip(PARTS, thirds, strict=True):
        vae[part] = save({key: tensors[key] for key in third})
    index = {key: part for part, third in zip(PARTS, thirds, strict=True) for key in third}
    vae["diffusion_pytorch_model.safetensors.index.json"] = json.dumps({"weight_map": index}).encode()
    samples.repositories.append(Repository("org/vae", vae, tags=()))
    hub.fault("/cdn/.*", cut(40_000), times=3)
    path = ensure_downloaded("hf:org/vae", registry, transport)
    assert below(path) == vae and [model.kind for model in list_models(registry)] == ["vae"]
    asked = [request.header("Range") for request in hub.requests if request.path.startswith("/cdn")]
    assert asked[:3] == [None] * 3 and None not in asked[3:]


def test_folders_are_refused_by_their_configuration(
    demo: Repository, hub: HubServer, transport: Transport, registry: Registry
) -> None:
    index = json.loads(demo.files["model_index.json"])
    del index["scheduler"]
    demo.replace(demo.files | {"model_index.json": json.dumps(index).encode()})
    with pytest.raises(ModelError, match=r"^hf:org/demo@\w+: cannot be used: .* has no denoiser with a scheduler"):
        ensure_downloaded("hf:org/demo", registry, transport)
    assert not [path for path in hub.paths() if path.startswith("/cdn")]
    assert [one.path.name for one in leftovers(registry) if not one.path.is_file()] == []


def test_what_is_said_of_a_fetched_model_calls_it_as_the_user_did(
    ink: Version, transport: Transport, registry: Registry
) -> None:
    stored = ensure_downloaded("civitai:102", registry, transport, noun="lora")
    for fault in (
        lambda: identify("civitai:102"),
        lambda: identify("demo", vae="civitai:102"),
        lambda: find_adapter("civitai:102", "controlnet", "give one"),
    ):
        with pytest.raises(ModelError, match="civitai:102: ") as told:
            fault()
        assert stored.stem not in str(told.value)


def test_a_whole_repository_as_vae_is_told_from_its_vae(
    demo: Repository, transport: Transport, registry: Registry
) -> None:
    ensure_downloaded("hf:org/demo", registry, transport)
    with pytest.raises(ModelError) as told:
        identify("demo", vae="hf:org/demo")
    way_out = str(told.value).rpartition(" ")[2]
    assert "is a whole model" in str(told.value) and way_out == "hf:org/demo/vae"
    settings, _ = identify("demo", vae=way_out)
    assert settings.vae_sha256


def test_a_fetched_model_that_was_deleted_is_fetched_again(
    ink: Version, weights: bytes, transport: Transport, registry: Registry
) -> None:
    ensure_downloaded("civitai:102", registry, transport).unlink()
    assert ensure_downloaded("civitai:102", registry, transport).read_bytes() == weights
    assert len(list_models(registry)) == 1
