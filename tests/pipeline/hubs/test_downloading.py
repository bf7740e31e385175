"""A download ends whole and verified under its name, or goes on later from where it was."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
from hub_server import HubServer, Reply, announce, cut, flip, instead, json_reply, stall
from hub_weights import Fetching, sha256, weights

from pipeline.errors import DownloadError
from pipeline.hubs.connecting import Pace
from pipeline.hubs.downloading import SPARE_BYTES
from pipeline.hubs.file_sources import HubRefused

WEIGHTS = weights()


@pytest.fixture
def fetching(tmp_path: Path) -> Iterator[Fetching]:
    with HubServer() as server:
        yield Fetching(server, tmp_path)


def test_a_file_arrives_whole_and_alone(fetching: Fetching) -> None:
    told: list[tuple[str, int, int | None]] = []
    path = fetching.fetch(
        WEIGHTS, fetching.offer(WEIGHTS), name="a\nb\x1b[31m.safetensors", progress=lambda *args: told.append(args)
    )
    assert path == fetching.target(WEIGHTS)
    assert path.read_bytes() == WEIGHTS
    assert fetching.left() == [path.name]
    assert {(name, of) for name, _, of in told} == {("a b [31m.safetensors", len(WEIGHTS))}
    here = [bytes_here for _, bytes_here, _ in told]
    assert here == sorted(here) and (here[0], here[-1]) == (0, len(WEIGHTS))


def test_what_is_there_asks_nobody(fetching: Fetching) -> None:
    source = fetching.offer(WEIGHTS)
    assert fetching.fetch(WEIGHTS, source) == fetching.fetch(WEIGHTS, source)
    assert len(fetching.server.requests) == 1


def test_a_file_whose_size_nobody_tells_is_known_by_its_hash(fetching: Fetching) -> None:
    source = fetching.offer(WEIGHTS)
    fetching.server.fault(".*", cut(1_000), times=1)
    assert fetching.fetch(WEIGHTS, source, size_bytes=None).read_bytes() == WEIGHTS
    assert fetching.ranges() == [None, "bytes=1000-"]


def test_gguf_arrives_too(fetching: Fetching, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "flux")
    writer.add_tensor("weight", np.zeros((8, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    content = (tmp_path / "a.gguf").read_bytes()
    target = fetching.target(content, ".gguf")
    assert fetching.fetch(content, fetching.offer(content), target=target).read_bytes() == content


def test_what_broke_off_is_gone_on_with(fetching: Fetching) -> None:
    source = fetching.offer(WEIGHTS)
    fetching.server.fault(".*", cut(100_000), times=1)
    fetching.server.fault(".*", cut(50_000), times=1)
    assert fetching.fetch(WEIGHTS, source).read_bytes() == WEIGHTS
    assert fetching.ranges() == [None, "bytes=100000-", "bytes=150000-"]
    assert fetching.waits == [1.0, 2.0]


def test_what_stands_still_is_gone_on_with(fetching: Fetching, tmp_path: Path) -> None:
    fetching = Fetching(fetching.server, tmp_path, Pace(silence_s=0.1))
    source = fetching.offer(WEIGHTS)
    fetching.server.fault(".*", stall(100_000), times=1)
    assert fetching.fetch(WEIGHTS, source).read_bytes() == WEIGHTS
    assert fetching.ranges() == [None, "bytes=100000-"]


def test_what_never_ends_is_kept_for_the_next_command(fetching: Fetching) -> None:
    source = fetching.offer(WEIGHTS)
    fetching.server.fault(".*", cut(100_000), times=1)
    fetching.server.fault(".*", cut(0), times=4)
    with pytest.raises(DownloadError) as caught:
        fetching.fetch(WEIGHTS, source)
    assert "100,000 bytes are kept, the same command resumes" in str(caught.value)
    assert fetching.waits == [1.0, 2.0, 4.0, 8.0]
    assert fetching.left() == [fetching.partial(WEIGHTS).name]
    assert fetching.partial(WEIGHTS).read_bytes() == WEIGHTS[:100_000]

    assert fetching.fetch(WEIGHTS, source).read_bytes() == WEIGHTS
    assert fetching.ranges()[-1] == "bytes=100000-"
    assert fetching.left() == [fetching.target(WEIGHTS).name]


def test_a_line_that_breaks_again_and_again_gets_there_as_long_as_it_brings_something(fetching: Fetching) -> None:
    large = weights(9_000_000)
    source = fetching.offer(large)
    fetching.server.fault(".*", cut(1_100_000))
    assert fetching.fetch(large, source).read_bytes() == large
    assert len(fetching.server.requests) == 9
    assert set(fetching.waits) == {1.0}


def test_a_body_without_a_length_that_ends_early_is_gone_on_with(fetching: Fetching) -> None:
    source = fetching.offer(WEIGHTS)
    fetching.server.fault(".*", instead(Reply(body=WEIGHTS[:1_000], length=-1)), times=1)
    assert fetching.fetch(WEIGHTS, source).read_bytes() == WEIGHTS
    assert fetching.ranges() == [None, "bytes=1000-"]


def test_a_server_without_ranges_starts_over(fetching: Fetching) -> None:
    source = fetching.offer(WEIGHTS, ranges=False)
    fetching.server.fault(".*", cut(100_000), times=1)
    assert fetching.fetch(WEIGHTS, source).read_bytes() == WEIGHTS
    assert fetching.ranges() == [None, "bytes=100000-"]


def leave_partial(fetching: Fetching, content: bytes) -> None:
    partial = fetching.partial(WEIGHTS)
    partial.parent.mkdir()
    partial.write_bytes(content)


@pytest.mark.parametrize("size_bytes", [len(WEIGHTS), None])
def test_a_partial_file_that_is_whole_is_only_verified(fetching: Fetching, size_bytes: int | None) -> None:
    leave_partial(fetching, WEIGHTS)
    assert fetching.fetch(WEIGHTS, fetching.offer(WEIGHTS), size_bytes=size_bytes).read_bytes() == WEIGHTS
    # Where its size is not known, only the server can tell that nothing is missing: it answers 416.
    assert fetching.ranges() == ([] if size_bytes else [f"bytes={len(WEIGHTS)}-"])


@pytest.mark.parametrize(
    "content",
    [b"\0" * 1_000, WEIGHTS[:5_000] + b"\0" * 10, b"\0" * len(WEIGHTS), WEIGHTS + b"more"],
    ids=["other", "other end", "other of the right length", "too long"],
)
@pytest.mark.parametrize("size_bytes", [len(WEIGHTS), None])
def test_a_partial_file_of_something_else_is_thrown_away(
    fetching: Fetching, content: bytes, size_bytes: int | None
) -> None:
    leave_partial(fetching, content)
    assert fetching.fetch(WEIGHTS, fetching.offer(WEIGHTS), size_bytes=size_bytes).read_bytes() == WEIGHTS
    assert fetching.ranges()[-1] is None


def test_another_part_than_was_asked_for_is_not_appended(fetching: Fetching) -> None:
    source = fetching.offer(WEIGHTS)
    leave_partial(fetching, WEIGHTS[:1_000])
    wrong = Reply(206, WEIGHTS[2_000:], (("Content-Range", f"bytes 2000-{len(WEIGHTS) - 1}/{len(WEIGHTS)}"),))
    fetching.server.fault(".*", instead(wrong), times=1)
    assert fetching.fetch(WEIGHTS, source).read_bytes() == WEIGHTS
    assert fetching.ranges() == ["bytes=1000-", None]


def test_one_wrong_bit_is_fetched_again_from_the_start(fetching: Fetching) -> None:
    source = fetching.offer(WEIGHTS)
    fetching.server.fault(".*", flip(-1), times=1)
    assert fetching.fetch(WEIGHTS, source).read_bytes() == WEIGHTS
    assert fetching.ranges() == [None, None]
    assert fetching.waits == []


def test_a_wrong_hash_is_said_with_both_and_leaves_nothing(fetching: Fetching) -> None:
    other = weights(seed=1)
    with pytest.raises(DownloadError) as caught:
        fetching.fetch(WEIGHTS, fetching.offer(other), name="dream.safetensors")
    assert str(caught.value) == (
        f"dream.safetensors: Hugging Face: the downloaded file has the SHA-256 {sha256(other)}, "
        f"expected {sha256(WEIGHTS)}"
    )
    assert len(fetching.server.requests) == 2
    assert fetching.left() == []


@pytest.mark.parametrize("length", [len(WEIGHTS) - 1, len(WEIGHTS) + 1, 10**15])
def test_a_wrong_length_is_noticed_before_anything_is_fetched(fetching: Fetching, length: int) -> None:
    source = fetching.offer(WEIGHTS)
    fetching.server.fault(".*", announce(length))
    with pytest.raises(DownloadError, match=f"announces {length} bytes where 300,0.. were promised"):
        fetching.fetch(WEIGHTS, source)
    assert len(fetching.server.requests) == 2
    assert fetching.left() == []


def test_more_than_was_promised_is_not_taken(fetching: Fetching) -> None:
    source = fetching.offer(WEIGHTS)
    fetching.server.fault(".*", instead(Reply(body=WEIGHTS + b"more", length=-1)))
    with pytest.raises(DownloadError, match="sends more than the"):
        fetching.fetch(WEIGHTS, source)
    assert fetching.left() == []


def test_the_next_source_goes_on_where_the_last_one_failed(fetching: Fetching) -> None:
    first, second = fetching.offer(WEIGHTS), fetching.offer(WEIGHTS, path="/civitai/a")
    fetching.server.fault("/hf/.*", cut(100_000), times=1)
    fetching.server.fault("/hf/.*", instead(json_reply({"error": "gone"}, 410)))
    assert fetching.fetch(WEIGHTS, [first, second]).read_bytes() == WEIGHTS
    assert fetching.server.paths() == ["/hf/a", "/hf/a", "/civitai/a"]
    assert fetching.ranges() == [None, "bytes=100000-", "bytes=100000-"]


def test_the_next_source_is_asked_where_the_first_has_something_else(fetching: Fetching) -> None:
    first, second = fetching.offer(weights(seed=1)), fetching.offer(WEIGHTS, path="/civitai/a")
    assert fetching.fetch(WEIGHTS, [first, second]).read_bytes() == WEIGHTS


def test_a_failure_names_every_source(fetching: Fetching) -> None:
    first = fetching.offer(weights(seed=1))
    second = fetching.source(f"{fetching.server.url}/civitai/a")
    with pytest.raises(DownloadError) as caught:
        fetching.fetch(WEIGHTS, [first, second])
    assert "Hugging Face: the downloaded file has the SHA-256" in str(caught.value)
    assert str(caught.value).endswith("; CivitAI has no such file")
    assert not isinstance(caught.value, HubRefused)  # one of them did give something


def test_no_source_at_all(fetching: Fetching) -> None:
    with pytest.raises(DownloadError, match="a: no hub has it"):
        fetching.fetch(WEIGHTS, [])


def test_a_disk_without_room_is_noticed_before_anything_is_asked(
    fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fetching.offer(WEIGHTS)
    usage = shutil.disk_usage(fetching.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=SPARE_BYTES + 200_000))
    with pytest.raises(DownloadError, match=r"293 KiB must be downloaded and 195 KiB are free for .*make room"):
        fetching.fetch(WEIGHTS, source)
    assert fetching.server.requests == []
    assert fetching.left() == []


NAMES = ["../../etc/passwd", "/etc/passwd", "a\0b", "x" * 300, "..", "C:\\x", "\u202egnp.exe", "a\nb", ""]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_from_a_server_is_shown_and_never_a_path(fetching: Fetching, name: str) -> None:
    before = set(fetching.folder.rglob("*"))
    path = fetching.fetch(WEIGHTS, fetching.offer(WEIGHTS), name=name)
    new = set(fetching.folder.rglob("*")) - before
    assert {one.relative_to(fetching.folder).parts[0] for one in new} <= {"store", "limits"}
    assert fetching.left() == [path.name]
    with pytest.raises(DownloadError) as caught:
        fetching.fetch(weights(seed=2), fetching.offer(WEIGHTS), name=name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
