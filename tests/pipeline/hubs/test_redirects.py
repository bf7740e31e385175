"""Where answers may lead: to the hub's own files on the internet, never elsewhere, and nobody else hears of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_network import PUBLIC_ADDRESS, Names, OneServer
from hub_server import HubServer, Reply, redirect

from pipeline.errors import Unreachable, UnsafeAnswer
from pipeline.hubs.connecting import Pace
from pipeline.hubs.hub_settings import HubSettings
from pipeline.hubs.limits import Limits
from pipeline.hubs.transport import Transport

FILE = b"the file"
START = "https://huggingface.co/org/name/resolve/main/a.safetensors"


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as server:
        server.file("/file", FILE)
        yield server


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)


class Hub:
    """The public hub as one server pretends to be it, and what was seen of the network."""

    def __init__(self, server: HubServer, folder: Path, settings: HubSettings, names: Names | None = None) -> None:
        self.server, self.names, self.network = server, names or Names(), OneServer(server)
        self.transport = Transport(
            settings, limits=Limits(folder, sleep=lambda seconds: None), network=self.network, resolve=self.names
        )

    def leads_to(self, location: str, status: int = 302) -> None:
        self.server.route("GET", "/org/.*", lambda request: redirect(location, status))

    def read(self, url: str = START, range_start: int | None = None) -> bytes:
        with self.transport.get(url, kind="huggingface.file", range_start=range_start, max_bytes=1_000) as answer:
            return answer.read()


@pytest.fixture
def hub(server: HubServer, tmp_path: Path) -> Hub:
    return Hub(server, tmp_path, HubSettings())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_hubs_storage_is_followed_to(hub: Hub, status: int) -> None:
    hub.leads_to("https://cas-bridge.xethub.hf.co/file?X-Amz-Signature=abc", status)
    assert hub.read() == FILE
    assert hub.names.asked == hub.network.certified == ["huggingface.co", "cas-bridge.xethub.hf.co"]
    assert hub.network.connected == [(PUBLIC_ADDRESS, 443)] * 2


def test_what_follows_a_redirect_carries_no_more_than_what_came_before(
    hub: Hub, server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub = Hub(server, tmp_path, HubSettings(allow_token=True))
    hub.leads_to("https://cdn-lfs.hf.co/file")
    assert hub.read(range_start=4) == FILE[4:]
    first, second = (dict(request.headers) for request in server.requests)
    assert first.pop("Authorization") == "Bearer hf_secret"
    assert (first.pop("Host"), second.pop("Host")) == ("huggingface.co", "cdn-lfs.hf.co")
    assert first == second
    assert set(second) == {"User-Agent", "Accept", "Accept-Encoding", "Range"}


def test_a_token_is_not_sent_on_even_to_the_hub_itself(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub = Hub(server, tmp_path, HubSettings(allow_token=True))
    hub.leads_to("/file")
    assert hub.read() == FILE
    assert [request.header("Authorization") for request in server.requests] == ["Bearer hf_secret", None]


ELSEWHERE = [
    "https://evil.example/file",
    "//evil.example/file",
    "http://cdn-lfs.hf.co/file",
    "https://cdn-lfs.hf.co:8443/file",
    "https://cdn-lfs.hf.co:0/file",
    "https://cdn-lfs.hf.co:99999/file",
    "https://cdn-lfs.hf.co.evil.example/file",
    "https://evilhf.co/file",
    "https://hf.co@evil.example/file",
    "https://me:password@cdn-lfs.hf.co/file",
    "https://evil.example\\@cdn-lfs.hf.co/file",
    "https://cdn-lfs.hf.co\\.evil.example/file",
    "https://evil.example/#@cdn-lfs.hf.co/file",
    "https://evil.example\\.hf.co/file",
    "https://evil.example%2f.hf.co/file",
    "https://evil.example%00.hf.co/file",
    "https://evil.example;.hf.co/file",
    "https://.hf.co/file",
    "https://b2.civitai.com/file",
    "http://127.0.0.1/file",
    "https://127.0.0.1/file",
    "https://127.1/file",
    "https://2130706433/file",
    "https://0x7f000001/file",
    "https://0177.0.0.1/file",
    "https://[::1]/file",
    "https://[::ffff:127.0.0.1]/file",
    "https://10.0.0.1/file",
    "https://169.254.169.254/latest/meta-data",
    "https://localhost/file",
    "https://[::1/file",
    "file:///etc/passwd",
    "ftp://cdn-lfs.hf.co/file",
    "javascript:alert(1)",
    "https://cdn-lfs.hf.co/fi\u00ffle",
    "https://\u00e9vil.hf.co/file",
]


@pytest.mark.parametrize("location", ELSEWHERE)
def test_nowhere_else_is_followed_to(hub: Hub, location: str) -> None:
    hub.leads_to(location)
    with pytest.raises(UnsafeAnswer) as caught:
        hub.read()
    assert len(str(caught.value).splitlines()) == 1
    assert "password" not in str(caught.value)
    assert hub.names.asked == ["huggingface.co"]
    assert len(hub.network.connected) == 1


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1", "fe80::1", "::ffff:10.0.0.1"],
)
@pytest.mark.parametrize("others", [[], [PUBLIC_ADDRESS]])
def test_a_known_name_with_an_inner_address_is_not_connected_to(
    server: HubServer, tmp_path: Path, address: str, others: list[str]
) -> None:
    hub = Hub(server, tmp_path, HubSettings(), Names(cdn_hf_co=[*others, address]))
    hub.leads_to("https://cdn.hf.co/file")
    with pytest.raises(UnsafeAnswer, match=r"cdn\.hf\.co: has the address .*, which is not on the internet"):
        hub.read()
    assert len(hub.network.connected) == 1


def test_the_hub_itself_must_be_on_the_internet_unless_the_user_says_where_it_is(
    server: HubServer, tmp_path: Path
) -> None:
    names = Names(huggingface_co=["192.168.0.7"])
    hub = Hub(server, tmp_path, HubSettings(), names)
    with pytest.raises(UnsafeAnswer, match="not on the internet"):
        hub.read()
    assert not hub.network.connected


def test_the_address_that_was_checked_is_the_one_connected_to(server: HubServer, tmp_path: Path) -> None:
    class Rebinding(Names):
        """Another address at every look, the first of them public."""

        def __call__(self, host: str, port: int, **options: object) -> list[object]:
            self.addresses = {host: ["127.0.0.1" if self.asked else PUBLIC_ADDRESS]}
            return super().__call__(host, port)

    hub = Hub(server, tmp_path, HubSettings(), Rebinding())
    hub.leads_to("https://cdn.hf.co/file")
    with pytest.raises(UnsafeAnswer, match=r"cdn\.hf\.co: has the address 127\.0\.0\.1"):
        hub.read()
    assert hub.network.connected == [(PUBLIC_ADDRESS, 443)]


def test_a_second_address_is_tried_where_the_first_is_dead(server: HubServer, tmp_path: Path) -> None:
    import httpcore2

    hub = Hub(server, tmp_path, HubSettings(), Names(huggingface_co=["1.1.1.1", "1.0.0.1"]))
    connect = hub.network.connect_tcp

    def half_dead(host: str, *args: object, **options: object) -> httpcore2.NetworkStream:
        if host == "1.1.1.1":
            raise httpcore2.ConnectTimeout
        return connect(host, *args, **options)  # type: ignore[arg-type]

    hub.network.connect_tcp = half_dead  # type: ignore[method-assign]
    assert hub.read("https://huggingface.co/file") == FILE
    assert hub.network.connected == [("1.0.0.1", 443)]


def test_dead_addresses_share_the_time_there_is_for_a_connection(server: HubServer, tmp_path: Path) -> None:
    import httpcore2

    hub = Hub(server, tmp_path, HubSettings(), Names(huggingface_co=["1.1.1.1", "1.0.0.1", "9.9.9.9", "8.8.8.8"]))
    waited: list[float] = []

    def dead(host: str, port: int, timeout: float | None = None, *args: object) -> httpcore2.NetworkStream:
        waited.append(timeout or 0.0)
        raise httpcore2.ConnectTimeout

    hub.network.connect_tcp = dead  # type: ignore[method-assign]
    with pytest.raises(Unreachable, match="does not answer"):
        hub.read("https://huggingface.co/file")
    assert len(waited) == 4 and waited[0] == pytest.approx(Pace().connect_s / 4, rel=0.1)


def test_an_endless_chain_ends(hub: Hub, server: HubServer) -> None:
    server.route("GET", r"/org/(?P<n>.*)", lambda request: redirect(f"{request.path}x"))
    with pytest.raises(UnsafeAnswer, match=r"huggingface\.co: redirects more than 5 times"):
        hub.read()
    assert len(server.requests) == 6


def test_a_status_of_redirects_without_a_place_is_an_answer(hub: Hub, server: HubServer) -> None:
    server.route("GET", "/org/.*", lambda request: Reply(302, b"where?"))
    with hub.transport.get(START, kind="huggingface.file", max_bytes=100) as answer:
        assert (answer.status, answer.read()) == (302, b"where?")


def test_a_mirror_may_lead_to_itself_and_to_the_hubs_own_places(server: HubServer, tmp_path: Path) -> None:
    mirror = "http://127.0.0.1:8970/hub"
    hub = Hub(server, tmp_path, HubSettings(huggingface_url=mirror))
    for location in ("/file", "http://127.0.0.1:8970/file", "https://cdn-lfs.hf.co/file"):
        server.route("GET", "/hub/.*", lambda request, to=location: redirect(to))  # type: ignore[misc]
        assert hub.read(f"{mirror}/a") == FILE
    assert hub.network.connected == [*[("127.0.0.1", 8970)] * 5, (PUBLIC_ADDRESS, 443)]


@pytest.mark.parametrize("location", ["http://127.0.0.1:8971/file", "http://localhost:8970/file", *ELSEWHERE])
def test_a_mirror_may_lead_nowhere_else(server: HubServer, tmp_path: Path, location: str) -> None:
    hub = Hub(server, tmp_path, HubSettings(huggingface_url="http://127.0.0.1:8970"))
    hub.leads_to(location)
    with pytest.raises(UnsafeAnswer):
        hub.read("http://127.0.0.1:8970/org/a")
    assert len(hub.network.connected) == 1


def test_civitai_leads_to_its_storage(server: HubServer, tmp_path: Path) -> None:
    hub = Hub(server, tmp_path, HubSettings())
    for host in (
        "b2.civitai.com",
        "x.5ac0637cfd0766c97916cefa3764fbdf.r2.cloudflarestorage.com",
        "s3.us.backblazeb2.com",
    ):
        server.route("GET", "/api/.*", lambda request, to=host: redirect(f"https://{to}/file", 307))  # type: ignore[misc]
        url = "https://civitai.com/api/download/models/1?fileId=2"
        with hub.transport.get(url, kind="civitai.file", max_bytes=100) as answer:
            assert answer.read() == FILE
            assert answer.url == f"https://{host}/file"
