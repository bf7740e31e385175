"""`model.config` from a hub: configurations and vocabularies without the weights, and never taken for the model."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_downloads import ensure_downloaded
from hub_protocols import Samples, demo_repository
from hub_server import HubServer

from pipeline.errors import ModelError
from pipeline.hubs.find_or_fetch import plan_download
from pipeline.hubs.results import Ok
from pipeline.hubs.transport import Transport
from pipeline.registry.database import Registry
from pipeline.registry.queries import find, list_models
from pipeline.registry.resolve import is_remote, resolve
from pipeline.registry.scanning import scan
from pipeline.registry.upkeep import remove
from pipeline.weights.hashes import folder_hash
from pipeline.weights.inspection import inspect_model
from pipeline.weights.references import EMBEDDED

NAME = "hf:tiny/demo"


@pytest.fixture
def whole(samples: Samples) -> None:
    """The hub has the embedded model."""
    samples.repositories.append(demo_repository())


@pytest.fixture
def configuration(registry: Registry, transport: Transport, whole: None) -> Path:
    """Its configuration, fetched."""
    return ensure_downloaded(NAME, registry, transport, noun="model.config")


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_no_weights_are_asked_for(hub: HubServer, configuration: Path) -> None:
    small = [name for name in names_in(EMBEDDED["demo"]) if name.endswith((".json", ".txt"))]
    assert names_in(configuration) == small
    assert not [path for path in hub.paths() if path.startswith("/cdn/")]


def test_it_serves_as_configuration_and_as_nothing_else(registry: Registry, configuration: Path) -> None:
    assert resolve(NAME, "model.config") == resolve(f"{NAME}/model_index.json", "model.config") == configuration
    assert not is_remote(NAME, "model.config") and is_remote(NAME)
    with pytest.raises(ModelError, match="not on this machine"):
        resolve(NAME)
    (known,) = list_models(registry)
    assert (
        known.name == "demo-configuration" and known.family == "sd15" and known.reference.endswith("/model_index.json")
    )
    with pytest.raises(ModelError, match="no such folder or file"):
        resolve("tiny-demo")


def test_a_single_file_goes_by_it(configuration: Path) -> None:
    from pipeline.weights.folder_inspection import inspect_folder

    supplied = ("unet", "vae", "text_encoder")
    there, here = inspect_folder(EMBEDDED["demo"], supplied), inspect_folder(configuration, supplied)
    assert folder_hash(configuration, here.files) == folder_hash(EMBEDDED["demo"], there.files)
    with pytest.raises(ModelError, match="fetch"):
        inspect_model(configuration)  # it is no model


def test_the_whole_is_preferred_once_it_is_here(
    registry: Registry, transport: Transport, hub: HubServer, configuration: Path
) -> None:
    said = plan_download(NAME, transport)
    assert isinstance(said, Ok) and not isinstance(said.value, Path)
    model = ensure_downloaded(NAME, registry, transport)
    assert resolve(NAME) == resolve(NAME, "model.config") == model != configuration
    hub.requests.clear()
    assert ensure_downloaded(NAME, registry, transport, noun="model.config") == model and hub.requests == []


def test_of_a_whole_model_no_configuration_is_fetched_beside_it(
    registry: Registry, transport: Transport, hub: HubServer, whole: None
) -> None:
    model = ensure_downloaded(NAME, registry, transport)
    hub.requests.clear()
    for reference in (NAME, f"{NAME}/model_index.json"):
        assert ensure_downloaded(reference, registry, transport, noun="model.config") == model
    assert hub.requests == [] and len(list_models(registry)) == 1


def test_it_is_found_again_from_its_note_and_can_be_removed(
    registry: Registry, home: Path, configuration: Path
) -> None:
    (known,) = find(registry, f"{NAME}/model_index.json")
    with registry.changing() as connection:
        connection.execute("DELETE FROM models")
    assert is_remote(NAME, "model.config")
    scan(registry, home / "models")
    (again,) = find(registry, f"{NAME}/model_index.json")
    assert (again.reference, again.path) == (known.reference, known.path) and find(registry, NAME) == []
    assert remove(registry, again) > 0 and not configuration.exists()


def test_a_component_that_is_here_is_taken_for_no_other_part_of_its_repository(
    registry: Registry, transport: Transport, whole: None
) -> None:
    vae = ensure_downloaded(f"{NAME}/vae", registry, transport, noun="vae")
    assert is_remote(NAME) and is_remote(NAME, "model.config") and is_remote(f"{NAME}/config.json")
    configuration = ensure_downloaded(NAME, registry, transport, noun="model.config")
    assert (configuration / "model_index.json").is_file()
    model = ensure_downloaded(NAME, registry, transport)
    assert len({vae, configuration, model}) == 3 and resolve(f"{NAME}/vae", "vae") == vae


def test_a_whole_model_is_not_fetched_for_its_vae(hub: HubServer, transport: Transport, whole: None) -> None:
    said = plan_download(NAME, transport, noun="vae")
    assert said.kind == "refused"
    named = said.say().rpartition(" ")[2]
    assert named.startswith(f"{NAME}@") and named.endswith("/vae")
    assert isinstance(plan_download(named, transport, noun="vae"), Ok)
