"""The canary test: of all that could tell who somebody is, nothing leaves the machine in a whole find and download."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hub_civitai import Version
from hub_huggingface import Repository
from hub_protocols import Samples, demo_repository
from hub_server import COOKIE, HubServer

from pipeline.version import VERSION

pytestmark = pytest.mark.slow

EVERYTHING = """
import sys
from pathlib import Path
from pipeline.hubs.cards import card
from pipeline.hubs.find_or_fetch import find_or_download, search
from pipeline.hubs.limits import Limits
from pipeline.hubs.hub_settings import HubSettings
from pipeline.hubs.transport import Transport
from pipeline.weights.references import parse
from pipeline.registry.database import Registry
from pipeline.registry.store_folders import data_folder

url, allowed = sys.argv[1:]
settings = HubSettings(huggingface_url=url, civitai_url=url, allow_token=bool(allowed))
transport = Transport(settings, limits=Limits(data_folder() / "limits", sleep=lambda seconds: None))
with Registry() as registry:
    print(search("ink", registry, transport))
    for name, kind in (("hf:tiny/demo", None), ("Ink", "lora")):
        found = find_or_download(name, registry, transport, kind=kind)
        assert found.downloaded and found.path.exists()
        print(found, card(transport, parse(found.reference)))
"""

TOKENS = (
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN", "CIVITAI_TOKEN", "CIVITAI_API_TOKEN",
    "CIVITAI_API_KEY",
)  # fmt: skip


@dataclass
class Run:
    """A process that finds and downloads, in surroundings that hold canaries. `secrets` by what they are."""

    said: str
    secrets: dict[str, str]
    sent: bytes
    to_proxy: bytes
    home: Path


@pytest.fixture
def demo(samples: Samples) -> Repository:
    """The embedded model as a repository."""
    samples.repositories.append(demo_repository())
    return samples.repositories[-1]


def run_everything(hub: HubServer, folder: Path, allow_token: bool) -> Run:
    """Find, download and describe a model of each hub, in a process of its own."""
    home = folder / "home-of-canary"
    settings = home / "huggingface"
    settings.mkdir(parents=True)
    secrets = {name: f"hf_CanaryOf{name.title().replace('_', '')}" for name in TOKENS}
    secrets |= {"token file": "hf_CanaryOfTheTokenFile", "netrc": "CanaryOfNetrc", "user": "canaryuser"}
    (settings / "token").write_text(secrets["token file"])
    (settings / "stored_tokens").write_text(f"[main]\nhf_token = {secrets['token file']}\n")
    netrc = home / ".netrc"
    netrc.write_text(f"machine 127.0.0.1 login {secrets['netrc']} password {secrets['netrc']}\n")
    netrc.chmod(0o600)
    with HubServer() as proxy:
        named = {f"{scheme}_proxy": proxy.url for scheme in ("http", "https", "all", "ftp")}
        environment = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            **{name: secrets[name] for name in TOKENS},
            **named,
            **{name.upper(): value for name, value in named.items()},
            "HOME": str(home), "HF_HOME": str(settings), "HF_TOKEN_PATH": str(settings / "token"), "NETRC": str(netrc),
            "USER": secrets["user"], "LOGNAME": secrets["user"], "USERNAME": secrets["user"],
            "DARKROOM_HOME": str(home / "darkroom"), "XDG_CACHE_HOME": str(home / "cache"),
        }  # fmt: skip
        run = subprocess.run(
            [sys.executable, "-c", EVERYTHING, hub.url, "yes" if allow_token else ""],
            env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        secrets |= {"home": str(home), "host": socket.gethostname(), "cookie": COOKIE.partition(";")[0]}
        return Run(run.stdout + run.stderr, secrets, hub.received(), proxy.received(), home)


def test_nothing_that_identifies_leaves_the_machine(
    hub: HubServer, demo: Repository, ink: Version, tmp_path: Path
) -> None:
    run = run_everything(hub, tmp_path, allow_token=False)
    # Both hubs were asked, and both files came: else this test would show nothing.
    paths = " ".join(hub.paths())
    assert "/tiny/demo/resolve/" in paths and "/cdn/" in paths
    assert "/api/download/models/102" in paths and "/storage/102/" in paths

    assert run.to_proxy == b""
    sent = run.sent.lower()
    for what, secret in run.secrets.items():
        assert secret.lower().encode() not in sent, what
    # What is not in a list cannot be forgotten in it: these are all headers there are.
    expected = {
        "Host": f"127.0.0.1:{hub.port}", "User-Agent": f"darkroom/{VERSION}", "Accept-Encoding": "identity",
    }  # fmt: skip
    for request in hub.requests:
        headers = dict(request.headers)
        assert len(headers) == len(request.headers)
        assert headers.pop("Accept") in ("*/*", "application/json, */*"), headers
        assert headers == expected
        assert request.body == b""
    # Both hubs are searched at once, so connections and requests may be counted in different orders.
    assert sorted(hub.connections()) == sorted(request.raw for request in hub.requests)


def test_tokens_are_not_written_down_either(hub: HubServer, demo: Repository, ink: Version, tmp_path: Path) -> None:
    run = run_everything(hub, tmp_path, allow_token=True)
    tokens = [run.secrets[name].encode() for name in (*TOKENS, "token file")]
    kept = [path for folder in ("darkroom", "cache") for path in (run.home / folder).rglob("*") if path.is_file()]
    assert any(path.name == "registry.sqlite" for path in kept)
    for text in (run.said.encode(), *(path.read_bytes() for path in kept)):
        assert not [token for token in tokens if token in text]


def test_a_token_goes_to_its_own_hub_where_the_user_allows_it(
    hub: HubServer, demo: Repository, ink: Version, tmp_path: Path
) -> None:
    run = run_everything(hub, tmp_path, allow_token=True)
    huggingface, civitai = (f"Bearer {run.secrets[name]}" for name in ("HF_TOKEN", "CIVITAI_TOKEN"))
    for request in hub.requests:
        of_civitai = request.path.startswith(("/api/v1/", "/api/download/"))
        after_a_redirect = request.path.startswith(("/cdn/", "/storage/"))
        expected = None if after_a_redirect else civitai if of_civitai else huggingface
        assert request.header("Authorization") == expected, request.path
    for what in {*TOKENS, "token file", "netrc"} - {"HF_TOKEN", "CIVITAI_TOKEN"}:
        assert run.secrets[what].encode() not in run.sent, what
    assert run.to_proxy == b""
