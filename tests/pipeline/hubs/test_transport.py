"""What is sent over the network, byte by byte, and how faults of servers end: as one line, and with little read."""

from __future__ import annotations

import gzip
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from hub_network import Names
from hub_server import HubServer, Reply, cut, drip, instead, json_reply, promise, stall

from pipeline.errors import Unreachable, UnsafeAnswer
from pipeline.hubs.connecting import Pace, WatchedStream
from pipeline.hubs.hub_settings import HubSettings
from pipeline.hubs.limits import Limits
from pipeline.hubs.transport import Transport
from pipeline.version import VERSION

BODY = b'{"id": "org/name"}'


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as server:
        server.route("GET", "/api/.*", lambda request: json_reply({"id": "org/name"}))
        yield server


def transport_to(url: str, folder: Path, **options: Any) -> Transport:
    settings = HubSettings(huggingface_url=url, civitai_url=url, proxy=options.pop("proxy", None))
    return Transport(settings, limits=Limits(folder, sleep=lambda seconds: None), **options)


@pytest.fixture
def transport(server: HubServer, tmp_path: Path) -> Transport:
    return transport_to(server.url, tmp_path)


def test_a_request_has_these_bytes_and_no_others(server: HubServer, transport: Transport) -> None:
    with transport.get(f"{server.url}/api/models/org/name?a=b%20c", kind="huggingface.api", max_bytes=100) as answer:
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json; charset=utf-8")
        assert answer.read() == BODY
    with transport.get(
        f"{server.url}/api/download", kind="civitai.file", accept="text/plain", range_start=1000, max_bytes=100
    ) as answer:
        pass
    always = f"Host: 127.0.0.1:{server.port}\r\nUser-Agent: darkroom/{VERSION}\r\n"
    assert [request.raw.decode() for request in server.requests] == [
        f"GET /api/models/org/name?a=b%20c HTTP/1.1\r\n{always}Accept: */*\r\nAccept-Encoding: identity\r\n\r\n",
        f"GET /api/download HTTP/1.1\r\n{always}Accept: text/plain\r\nAccept-Encoding: identity\r\n"
        "Range: bytes=1000-\r\n\r\n",
    ]
    assert server.received() == b"\n".join(request.raw for request in server.requests)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 416, 429, 451, 500, 502, 503])
def test_a_refusal_is_an_answer_like_any_other(server: HubServer, transport: Transport, status: int) -> None:
    server.fault("/api/.*", instead(json_reply({"error": "no"}, status).with_headers(Retry_After="7")))
    with transport.get(f"{server.url}/api/x", kind="civitai.api", max_bytes=100) as answer:
        assert (answer.status, answer.headers["retry-after"], answer.read()) == (status, "7", b'{"error": "no"}')


def read(transport: Transport, url: str, max_bytes: int = 10_000) -> bytes:
    with transport.get(url, kind="huggingface.api", max_bytes=max_bytes) as answer:
        return answer.read()


def test_only_a_hubs_own_address_is_begun_with(server: HubServer, tmp_path: Path) -> None:
    transport = transport_to(f"{server.url}/hub", tmp_path)
    for url in (
        "https://evil.example/x",
        server.url,
        f"{server.url}/hubs",
        f"http://127.0.0.1:{server.port + 1}/hub/x",
    ):
        with pytest.raises(UnsafeAnswer, match="is not the address of this hub"):
            read(transport, url)
    assert server.received() == b""


def test_a_longer_body_than_allowed_is_not_read(server: HubServer, transport: Transport) -> None:
    with pytest.raises(UnsafeAnswer, match="sends more than the 17 bytes that were expected"):
        read(transport, f"{server.url}/api/x", max_bytes=len(BODY) - 1)
    server.fault("/api/.*", instead(Reply(body=BODY, length=-1)))  # without saying so
    with pytest.raises(UnsafeAnswer, match="sends more than the 17 bytes that were expected"):
        read(transport, f"{server.url}/api/x", max_bytes=len(BODY) - 1)
    assert read(transport, f"{server.url}/api/x", max_bytes=len(BODY)) == BODY


@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP, gzip"])
def test_a_compression_bomb_is_not_unpacked(server: HubServer, transport: Transport, encoding: str) -> None:
    bomb = Reply(200, gzip.compress(bytes(10_000_000)), (("Content-Encoding", encoding),))
    server.fault("/api/.*", instead(bomb))
    with pytest.raises(UnsafeAnswer, match="sends its answer compressed"):
        read(transport, f"{server.url}/api/x", max_bytes=2**30)


def test_headers_of_a_hundred_megabytes_are_not_read_to_their_end(tmp_path: Path) -> None:
    sent = 0
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"

        def boast() -> None:
            nonlocal sent
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.recv(10_000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
                for _ in range(100):
                    connection.sendall(b"x" * 1_000_000)
                    sent += 1_000_000

        thread = threading.Thread(target=boast)
        thread.start()
        with pytest.raises(Unreachable, match="the connection failed"):
            read(transport_to(url, tmp_path), f"{url}/x")
        thread.join()
    assert sent < 30_000_000  # what the system's buffers take, which the client never asked for


def test_provisional_answers_without_end_are_cut_off(server: HubServer, transport: Transport) -> None:
    server.fault("/api/.*", promise())
    with pytest.raises(UnsafeAnswer, match=r"127\.0\.0\.1: sends headers without end"):
        read(transport, f"{server.url}/api/x")


def test_only_what_comes_before_the_body_counts_as_headers(server: HubServer, transport: Transport) -> None:
    server.route("GET", "/large", lambda request: Reply(body=bytes(2_000_000)))
    assert read(transport, f"{server.url}/large", max_bytes=2_000_000) == bytes(2_000_000)


@pytest.mark.parametrize("name", ["huggingface.co", "mirror.example", "proxy.example"])
def test_a_name_server_that_does_not_answer_is_not_waited_for(tmp_path: Path, name: str) -> None:
    never = threading.Event()
    url = "http://mirror.example" if name == "mirror.example" else None
    proxy = "socks5h://proxy.example:9050" if name == "proxy.example" else None

    def silent(host: str, port: int, **options: Any) -> list[Any]:
        assert host == name
        never.wait()
        return []

    transport = Transport(
        HubSettings(huggingface_url=url, proxy=proxy),
        limits=Limits(tmp_path),
        pace=Pace(looked_up_s=0.05),
        resolve=silent,
    )
    with pytest.raises(Unreachable, match=f"{name}: no name server answers within 0.05 s"):
        read(transport, f"{transport.settings.url_of('huggingface')}/x")
    never.set()


@pytest.mark.parametrize("after", [-1, 0, 5])
def test_a_connection_that_stands_still_is_given_up(server: HubServer, tmp_path: Path, after: int) -> None:
    server.fault("/api/.*", stall(after))
    transport = transport_to(server.url, tmp_path, pace=Pace(silence_s=0.1))
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1: does not answer, or has stopped to"):
        read(transport, f"{server.url}/api/x")


def test_a_connection_that_drips_is_given_up(server: HubServer, tmp_path: Path) -> None:
    server.fault("/api/.*", instead(Reply(body=b"x" * 5_000)))
    server.fault("/api/.*", drip(0.01))
    server.route("GET", "/slow", lambda request: Reply(body=b"x" * 5_000, drip_s=0.01))
    transport = transport_to(server.url, tmp_path, pace=Pace(window_s=0.1))
    with pytest.raises(Unreachable, match="sends so slowly"):
        read(transport, f"{server.url}/slow")


class Slow:
    """A stream that takes `seconds` for each arrival, by the clock that it is."""

    def __init__(self, arrivals: list[tuple[float, int]]) -> None:
        self.now = 0.0
        self._arrivals = iter(arrivals)

    def __call__(self) -> float:
        return self.now

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        seconds, length = next(self._arrivals)
        self.now += seconds
        return bytes(length)


@pytest.mark.parametrize(
    ("arrivals", "survives"),
    [
        ([(59, 500), (1, 3_000)], True),  # long thought, quick answer
        ([(0, 500), (50, 3_000)], True),  # a pause
        ([(0, 65_536), (59, 65_536), (59, 65_536)], True),  # a slow line
        ([(0, 500), *[(1, 1)] * 70], False),  # a drip
        ([(0, 65_536), *[(1, 65_536)] * 60, *[(1, 1)] * 130], False),  # fast at first
    ],
)
def test_who_is_slow_is_told_from_who_drips(arrivals: list[tuple[float, int]], survives: bool) -> None:
    slow = Slow(arrivals)
    stream = WatchedStream(slow, Pace(), "hf.co", slow)  # type: ignore[arg-type]
    if survives:
        for _ in arrivals:
            stream.read(65_536)
    else:
        with pytest.raises(Unreachable, match="sends so slowly"):
            for _ in arrivals:
                stream.read(65_536)


def test_a_connection_that_breaks_off_is_out_of_reach(server: HubServer, transport: Transport) -> None:
    server.fault("/api/.*", cut(5))
    with (
        transport.get(f"{server.url}/api/x", kind="huggingface.api", max_bytes=100) as answer,
        pytest.raises(Unreachable, match=r"127\.0\.0\.1: the connection failed"),
    ):
        answer.read()


def test_nobody_there(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1: the connection failed \(Connection refused\)"):
            read(transport_to(url, tmp_path), f"{url}/x")


def test_what_is_no_http_is_out_of_reach(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"

        def greet() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n" * 10)

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(Unreachable, match="the connection failed"):
            read(transport_to(url, tmp_path), f"{url}/x")
        thread.join()


@pytest.mark.skipif(which("openssl") is None, reason="makes its certificate with openssl")
def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    got = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def shake_hands() -> None:
            connection, _ = listening.accept()
            with connection:
                try:
                    context.wrap_socket(connection, server_side=True)
                except OSError as error:
                    got.append(error)

        thread = threading.Thread(target=shake_hands)
        thread.start()
        url = f"https://localhost:{listening.getsockname()[1]}"
        with pytest.raises(UnsafeAnswer, match="localhost: its certificate is not trusted"):
            read(transport_to(url, tmp_path), f"{url}/x")
        thread.join()
    assert got  # no request got through


def test_the_proxy_gets_everything_and_looks_up_the_names(server: HubServer, tmp_path: Path) -> None:
    names = Names()
    transport = transport_to("http://hub.example", tmp_path, proxy=server.url, resolve=names)
    assert read(transport, "http://hub.example/api/x") == BODY
    assert server.received().startswith(b"GET http://hub.example:80/api/x HTTP/1.1\r\n")
    assert b"Host: hub.example\r\n" in server.received()
    assert not names.asked


def test_an_http_proxy_gets_a_tunnel_for_https(server: HubServer, tmp_path: Path) -> None:
    transport = transport_to("https://hub.example", tmp_path, proxy=server.url.replace("//", "//me:secret@"))
    with pytest.raises(Unreachable, match=r"hub\.example \(through hub\.proxy\): the proxy refuses") as caught:
        read(transport, "https://hub.example/api/x")
    assert "secret" not in str(caught.value)
    assert server.received().startswith(b"CONNECT hub.example:443 HTTP/1.1\r\n")
    assert b"\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n" in server.received()
    assert b"darkroom" not in server.received()


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_socks_proxy_gets_the_name_and_not_the_address(server: HubServer, tmp_path: Path, scheme: str) -> None:
    seen = bytearray()
    names = Names()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def proxy() -> None:
            connection, _ = listening.accept()
            with connection, socket.create_connection(("127.0.0.1", server.port)) as onward:
                seen.extend(connection.recv(100))
                connection.sendall(b"\x05\x00")
                seen.extend(connection.recv(100))
                connection.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
                onward.sendall(connection.recv(10_000))
                while data := onward.recv(10_000):
                    connection.sendall(data)

        thread = threading.Thread(target=proxy)
        thread.start()
        through = f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"
        transport = transport_to("http://hub.onion", tmp_path, proxy=through, resolve=names)
        assert read(transport, "http://hub.onion/api/x") == BODY
        thread.join()
    assert bytes(seen) == b"\x05\x01\x00" + b"\x05\x01\x00\x03\x09hub.onion\x00\x50"
    assert not names.asked


def test_what_the_network_needs_is_imported_when_it_is_used() -> None:
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import pipeline.hubs.downloading"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert "pipeline.hubs.transport" in imported
    assert not imported & {"httpcore2", "tqdm", "torch", "numpy", "huggingface_hub", "pydantic"}
