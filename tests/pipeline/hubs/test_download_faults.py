"""What hubs send in place of weights is refused, and what it means is said; nothing that looks whole is left behind."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hub_server import HubServer, Reply, html_reply, instead, json_reply, redirect
from hub_weights import Fetching, weights

from pipeline.errors import DownloadError
from pipeline.hubs.file_sources import HubRefused

WEIGHTS = weights()
BINARY = (("Content-Type", "application/octet-stream"),)
LOGIN = {"error": "Unauthorized", "message": "The creator of this asset requires you to be logged in to download it"}


@pytest.fixture
def fetching(tmp_path: Path) -> Iterator[Fetching]:
    with HubServer() as server:
        yield Fetching(server, tmp_path)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": list(range(100))}))
    return file.getvalue()


def unsound(header: bytes, length: int | None = None, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><html><body>" + b"Please log in. " * 10_000, "sends a web page"),
        (json.dumps(LOGIN).encode(), "sends JSON text"),
        (pickle.dumps({"weight": list(range(10_000))}), "a pickle, which can run code"),
        (zipped(), "a zip archive, as PyTorch's pickles are"),
        (b"\x1f\x8b\x08\x00" + bytes(1_000), "a gzip archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\n", "a Git LFS pointer"),
        (
            unsound(b'{"a":1}' + b" " * 100, 100_000_000),
            "a header of 100,000,000 bytes, more than 16,777,216, made to harm",
        ),
        (unsound(b'{"a":1}' + b" " * 100, 2**63), "made to harm"),
        (b"\0" * 1_000, "something that is no safetensors file"),
    ],
    ids=["html", "json", "pickle", "zip", "gzip", "lfs", "100 MB header", "endless header", "zeros"],
)
def test_what_is_no_weights_is_refused_at_its_first_bytes(fetching: Fetching, content: bytes, said: str) -> None:
    """Even where its hash is the one that the hub has told, and however long it is."""
    source = fetching.offer(content)
    with pytest.raises(DownloadError) as caught:
        fetching.fetch(content, source)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(fetching.server.requests) == 1
    assert fetching.left() == []


def test_a_huge_header_is_not_fetched_to_its_end(fetching: Fetching) -> None:
    attack = unsound(b'{"a":"' + b"x" * 50_000_000 + b'"}')
    told: list[int] = []
    with pytest.raises(DownloadError, match="made to harm"):
        fetching.fetch(attack, fetching.offer(attack), progress=lambda name, here, of: told.append(here))
    assert max(told) < 1_000_000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (unsound(b'{"a": nonsense' + b" " * 50), "no valid JSON"),
        (unsound(b'{"a": {"dtype":"F32","shape":[10],"data_offsets":[0,40]}}'), "where its header says"),
        (unsound(b'{"a": {"dtype":"F32","shape":[10],"data_offsets":[0,4]}}', body=b"1234"), "damaged at tensor 'a'"),
        (b"{}", "is JSON text"),
        (b"", "too short for a safetensors file"),
    ],
    ids=["no json", "cut off", "contradiction", "tiny", "empty"],
)
def test_a_file_that_is_as_promised_and_unsound_is_refused(fetching: Fetching, content: bytes, said: str) -> None:
    with pytest.raises(DownloadError) as caught:
        fetching.fetch(content, fetching.offer(content))
    assert said in str(caught.value)
    assert ".partial" not in str(caught.value)
    assert fetching.left() == []


@pytest.mark.parametrize("suffix", [".gguf", ".safetensors"])
def test_the_other_kind_of_weights_is_refused(fetching: Fetching, suffix: str) -> None:
    content = WEIGHTS if suffix == ".gguf" else b"GGUF" + bytes(100)
    with pytest.raises(DownloadError, match="sends"):
        fetching.fetch(content, fetching.offer(content), target=fetching.target(content, suffix))


@pytest.mark.parametrize("reply", [html_reply(), json_reply(LOGIN)], ids=["html", "json"])
def test_a_page_in_place_of_a_file_does_not_cost_what_was_fetched(fetching: Fetching, reply: Reply) -> None:
    source = fetching.offer(WEIGHTS)
    partial = fetching.partial(WEIGHTS)
    partial.parent.mkdir()
    partial.write_bytes(WEIGHTS[:1_000])
    fetching.server.fault(".*", instead(reply))
    with pytest.raises(DownloadError, match="in place of the file; its author may ask for a login"):
        fetching.fetch(WEIGHTS, source)
    assert len(fetching.server.requests) == 1
    assert partial.read_bytes() == WEIGHTS[:1_000]


def test_a_redirect_to_a_login_page_is_no_file(fetching: Fetching) -> None:
    fetching.server.route("GET", "/civitai/a", lambda request: redirect("/civitai/login?reason=download-auth"))
    fetching.server.route("GET", "/civitai/login", lambda request: html_reply())
    with pytest.raises(DownloadError, match="CivitAI: sends a web page"):
        fetching.fetch(WEIGHTS, fetching.source(f"{fetching.server.url}/civitai/a"))


def test_a_redirect_elsewhere_is_no_file(fetching: Fetching) -> None:
    fetching.server.route("GET", "/hf/a", lambda request: redirect("http://127.0.0.1:1/a"))
    with pytest.raises(DownloadError, match="which is no known place of its files"):
        fetching.fetch(WEIGHTS, fetching.source(f"{fetching.server.url}/hf/a"))
    assert len(fetching.server.requests) == 1


@pytest.mark.parametrize(
    ("status", "requests", "said"),
    [
        (400, 1, "refuses (status 400)"),
        (401, 1, "asks for a login"),
        (403, 1, "does not give it to everybody"),
        (404, 3, "has no such file"),
        (410, 1, "no longer gives it out"),
        (429, 5, "asks for fewer requests"),
        (451, 1, "must not give it out"),
        (500, 5, "is out of order (status 500)"),
        (503, 5, "is out of order (status 503)"),
    ],
)
def test_a_refusal_is_asked_about_again_only_where_that_may_help(
    fetching: Fetching, status: int, requests: int, said: str
) -> None:
    source = fetching.offer(WEIGHTS)
    fetching.server.fault(".*", instead(json_reply(LOGIN, status).with_headers(X_Error_Code="Gated")))
    with pytest.raises(HubRefused) as caught:
        fetching.fetch(WEIGHTS, source)
    assert str(caught.value).startswith(f"a: Hugging Face {said}")
    assert len(fetching.server.requests) == requests
    (refusal,) = caught.value.refusals
    assert (refusal.status, refusal.source) == (status, source)
    assert refusal.answer.headers["x-error-code"] == "Gated"
    assert json.loads(refusal.answer.body) == LOGIN
    assert fetching.left() == []


@pytest.mark.parametrize("status", [404, 408, 425, 429, 500, 502, 503, 504])
def test_what_passes_is_waited_for(fetching: Fetching, status: int) -> None:
    source = fetching.offer(WEIGHTS)
    fetching.server.fault(".*", instead(json_reply({"error": "busy"}, status)), times=2)
    assert fetching.fetch(WEIGHTS, source).read_bytes() == WEIGHTS
    assert fetching.waits == ([30.0, 60.0] if status == 429 else [1.0, 2.0])


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_kept_to(fetching: Fetching, status: int) -> None:
    source = fetching.offer(WEIGHTS)
    fetching.server.fault(".*", instead(Reply(status).with_headers(Retry_After="7")), times=1)
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=300), usegmt=True)
    fetching.server.fault(".*", instead(Reply(status).with_headers(Retry_After=date)), times=1)
    assert fetching.fetch(WEIGHTS, source).read_bytes() == WEIGHTS
    assert fetching.waits[0] == 7.0
    assert 200 < fetching.waits[1] <= 300


def test_who_wants_to_be_left_alone_for_an_hour_is(fetching: Fetching) -> None:
    first, second = fetching.offer(WEIGHTS), fetching.offer(WEIGHTS, path="/civitai/a")
    fetching.server.fault("/hf/.*", instead(Reply(429).with_headers(Retry_After="3600")))
    assert fetching.fetch(WEIGHTS, [first, second]).read_bytes() == WEIGHTS
    assert fetching.waits == []
    assert fetching.server.paths() == ["/hf/a", "/civitai/a"]


def test_every_refusal_is_told_in_order(fetching: Fetching) -> None:
    sources = [fetching.source(f"{fetching.server.url}{path}") for path in ("/hf/a", "/civitai/a")]
    fetching.server.fault("/hf/.*", instead(json_reply({}, 401)))
    fetching.server.fault("/civitai/.*", instead(json_reply({}, 410)))
    with pytest.raises(HubRefused) as caught:
        fetching.fetch(WEIGHTS, sources)
    assert [refusal.status for refusal in caught.value.refusals] == [401, 410]
    assert str(caught.value) == "a: Hugging Face asks for a login; CivitAI no longer gives it out"


def test_a_refusal_of_any_length_is_cut(fetching: Fetching) -> None:
    source = fetching.offer(WEIGHTS)
    fetching.server.fault(".*", instead(Reply(403, b"x" * 5_000_000, BINARY)))
    with pytest.raises(HubRefused) as caught:
        fetching.fetch(WEIGHTS, source)
    assert len(caught.value.refusals[0].answer.body) == 65_536
