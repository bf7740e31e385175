"""The models of the hub that `python tests/hub_server.py` starts, fetched like any other."""

from __future__ import annotations

import pytest
from hub_downloads import ensure_downloaded
from hub_protocols import add_hubs, listed, sample_models
from hub_server import HubServer

from pipeline.hubs.find_or_fetch import find_or_download
from pipeline.hubs.transport import Transport
from pipeline.registry.database import Registry
from pipeline.registry.queries import stats
from pipeline.weights.inspection import inspect_file, inspect_model


@pytest.mark.slow
def test_a_checkpoint_a_pipeline_and_loras_come_as_what_they_are(
    hub: HubServer, transport: Transport, registry: Registry
) -> None:
    samples = sample_models()
    add_hubs(hub, samples)
    assert "civitai:103 Tiny Login (login)" in listed(samples)
    folder = inspect_model(ensure_downloaded("hf:tiny/sdxl", registry, transport))
    assert (folder.family, folder.variant) == ("sdxl", "fp16")
    assert {component.dtype for component in folder.components} == {"float16"}
    file = inspect_file(find_or_download("Tiny Dream", registry, transport, kind="checkpoint").path)
    assert (file.kind, file.family) == ("checkpoint", "sd15")
    for reference in ("civitai:102", "hf:tiny/pixel-lora"):
        assert inspect_file(ensure_downloaded(reference, registry, transport, noun="lora")).kind == "lora"
    counted = stats(registry)
    assert counted.by_source == {"civitai": 2, "huggingface": 2} and counted.downloaded == 4
