"""Damaged, foreign, oversized, hand-edited files: one clear line each; other programs' images described."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline.errors import ReadError
from pipeline.metadata.exif import user_comment
from pipeline.metadata.png import chunk, insert_chunks, international_text_chunk, text_chunk
from pipeline.metadata.reading import NoRecordError, read_any, read_id, read_pixels, read_record

FORMATS = ["png", "jpeg", "webp"]
PLAIN = Image.new("RGB", (16, 16), (200, 30, 30))


def plain_bytes(image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    PLAIN.save(buffer, image_format, **options)
    return buffer.getvalue()


def one_line(error: BaseException, path: Path) -> str:
    text = str(error)
    assert "\n" not in text and text.startswith(str(path)) and len(text) < len(str(path)) + 250
    return text


@pytest.mark.parametrize("reader", [read_record, read_any, read_pixels, read_id])
@pytest.mark.parametrize("output_format", FORMATS)
def test_truncated_images(sample: Callable[..., Any], tmp_path: Path, output_format: str, reader: Any) -> None:
    data = sample(output_format=output_format).encode().data
    path = tmp_path / f"cut.{output_format}"
    for length in (1, 11, 30, 100, len(data) // 2, len(data) - 30, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ReadError) as caught:
            reader(path)
        assert any(word in one_line(caught.value, path) for word in ("truncated", "not a PNG"))


@pytest.mark.parametrize("output_format", FORMATS)
def test_flipped_bytes_never_crash(sample: Callable[..., Any], tmp_path: Path, output_format: str) -> None:
    data = bytearray(sample(output_format=output_format).encode().data)
    path = tmp_path / f"flipped.{output_format}"
    for at in range(0, min(len(data), 4000), 13):
        changed = bytearray(data)
        changed[at] ^= 0x55
        path.write_bytes(changed)
        for reader in (read_record, read_any):
            try:
                reader(path)
            except ReadError as error:
                one_line(error, path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"prompt: a house\n", "not a PNG, JPEG or WebP"),
        (b"GIF89a" + bytes(50), "not a PNG, JPEG or WebP"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"\xff\xd8\xff\xe0\x00\x04ab", "truncated"),
        (b"RIFF\x04\x00\x00\x00WEBP", "header is missing"),
    ],
)
def test_what_is_no_image(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "not.png"
    path.write_bytes(content)
    with pytest.raises(ReadError, match=words) as caught:
        read_record(path)
    one_line(caught.value, path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(ReadError, match="cannot be opened"):
            read_record(path)


def test_a_text_chunk_of_5_mb(sample: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "big.png"
    path.write_bytes(insert_chunks(plain_bytes("png"), [international_text_chunk("parameters", "x" * 5_000_000)]))
    for reader in (read_record, read_any, read_pixels):
        with pytest.raises(ReadError, match=r"'iTXt' part has 4\.8 MiB, more than 4\.0 MiB") as caught:
            reader(path)
        one_line(caught.value, path)


def test_a_compressed_text_bomb_is_not_inflated(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    bomb = b"parameters\x00\x00" + zlib.compress(bytes(50_000_000))
    path.write_bytes(insert_chunks(plain_bytes("png"), [chunk(b"zTXt", bomb)]))
    with pytest.raises(NoRecordError):
        read_record(path)
    with pytest.raises(ReadError, match="cannot be read") as caught:
        read_any(path)
    one_line(caught.value, path)


def test_decompression_bombs(tmp_path: Path) -> None:
    png = plain_bytes("png")
    header = chunk(b"IHDR", struct.pack(">II", 60_000, 60_000) + png[24:29])
    jpeg = bytearray(plain_bytes("jpeg"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    for path, data in ((tmp_path / "a.png", png[:8] + header + png[33:]), (tmp_path / "a.jpeg", bytes(jpeg))):
        path.write_bytes(data)
        for reader in (read_record, read_any, read_pixels):
            with pytest.raises(ReadError, match=r"60000 x 60000 pixels.*bomb") as caught:
                reader(path)
            one_line(caught.value, path)


@pytest.mark.parametrize("output_format", FORMATS)
def test_private_and_foreign_images_are_told_apart(
    sample: Callable[..., Any], tmp_path: Path, output_format: str
) -> None:
    private = sample(output_format=output_format, profile="private")
    path = tmp_path / f"private.{output_format}"
    path.write_bytes(private.encode().data)
    with pytest.raises(NoRecordError, match=f"private image.*{private.record.id}"):
        read_record(path)
    path = tmp_path / f"foreign.{output_format}"
    path.write_bytes(plain_bytes(output_format))
    with pytest.raises(NoRecordError, match="no Darkroom record"):
        read_record(path)
    with pytest.raises(NoRecordError):
        read_any(path)
    assert read_id(path) is None
    assert read_pixels(path).shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "darkroom.image/2"}, r"schema 'darkroom\.image/2'"),
        ({"schema": None}, "schema 'no version'"),
        ({"steps": "many"}, "steps"),
        ({"seed": -1}, "seed"),
        ({"user": "anna"}, "user"),
    ],
)
def test_hand_edited_records(sample: Callable[..., Any], tmp_path: Path, change: dict[str, Any], words: str) -> None:
    content = json.loads(sample().record.to_json()) | change
    path = tmp_path / "edited.png"
    path.write_bytes(insert_chunks(plain_bytes("png"), [text_chunk("darkroom:metadata", json.dumps(content))]))
    for reader in (read_record, read_any):
        with pytest.raises(ReadError, match=words) as caught:
            reader(path)
        one_line(caught.value, path)


def merged(values: Any, change: Any) -> Any:
    """`values` with what `change` sets, at any depth."""
    if not isinstance(values, dict) or not isinstance(change, dict):
        return change
    return values | {key: merged(values.get(key), value) for key, value in change.items()}


TAMPERED: list[dict[str, Any]] = [
    {"batch": {"size": 10**6}},
    {"batch": {"index": 99}},
    {"batch": {"index": 4}},
    {"prompt": "x" * 3_000_000},
    {"prompt": "a\x1b[2J"},
    {"negative_prompt": "\x00"},
    {"prompt_template": "\x85"},
    {"job": {"name": "a\x07"}},
    {"job": {"tags": ["\x9b"]}},
    {"job": {"prompt_index": -1}},
    {"job": {"attempt": 2**31}},
    {"scheduler": {"config": {"deep": [{"er": "\x1b"}]}}},
    {"scheduler": {"options": {"num_train_timesteps": 10**9}}},
    {"scheduler": {"options": {"shift": 10**400}}},
    {"steps": 10**9},
    {"steps": 0},
    {"width": 33},
    {"height": 10**6},
    {"guidance_scale": 1e9},
    {"clip_skip": 99},
    {"clip_skip": 0},
    {"runtime": {"cpu_threads": 10**5}},
    {"runtime": {"cpu_threads": 0}},
    {"model": {"prediction_type": "os.system"}},
    {"model": {"max_sequence_length": 10**9}},
    {"loras": [{"name": "a", "sha256": "0" * 64, "weight": 1e6}]},
    {"init": {"image": {"name": "a", "sha256": "0" * 64}, "strength": 0}},
    {"noise": {"shape": [1] * 100_000}},
    {"measured": {"peak_rss_bytes": 10**30}},
    {"memory": {"budget_bytes": -1}},
    {"output": {"quality": 1000}},
    {"created": "2025-01-11T14:30:22"},
    {"created": "0001-01-01T00:00:00+14:00"},
    {"created": "9999-12-31T23:59:59-14:00"},
    {"x" * 100_000: 1},
    {"a\nb": 1},
    {"schema": "y" * 100_000},
]


@pytest.mark.parametrize("change", TAMPERED, ids=lambda change: str(change)[:40])
def test_a_record_is_bounded_on_the_way_in(sample: Callable[..., Any], tmp_path: Path, change: dict[str, Any]) -> None:
    content = merged(json.loads(sample().record.to_json()), change)
    path = tmp_path / "tampered.png"
    text = json.dumps(content)
    path.write_bytes(insert_chunks(plain_bytes("png"), [text_chunk("darkroom:metadata", text)]))
    for reader in (read_record, read_any):
        with pytest.raises(ReadError, match="its record is") as caught:
            reader(path)
        assert one_line(caught.value, path).isprintable()


def test_an_id_that_is_none_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "private.png"
    path.write_bytes(insert_chunks(plain_bytes("png"), [international_text_chunk("darkroom:id", "\x1b[2J" * 9_000)]))
    assert read_id(path) is None
    with pytest.raises(NoRecordError) as caught:
        read_any(path)
    assert one_line(caught.value, path).isprintable()


@pytest.mark.parametrize("text", ["{", "", "[1]", "null", '{"schema": "darkroom.image/1"}', "\x07" * 9])
def test_records_that_are_not_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "edited.png"
    path.write_bytes(insert_chunks(plain_bytes("png"), [international_text_chunk("darkroom:metadata", text)]))
    with pytest.raises(ReadError, match="record") as caught:
        read_record(path)
    one_line(caught.value, path)


def test_a_wrong_checksum_and_an_entity_bomb(tmp_path: Path) -> None:
    path = tmp_path / "damaged.png"
    damaged = bytearray(text_chunk("darkroom:metadata", "x"))
    damaged[-1] ^= 1
    path.write_bytes(insert_chunks(plain_bytes("png"), [bytes(damaged)]))
    with pytest.raises(ReadError, match="CRC"):
        read_record(path)
    xmp = '<!DOCTYPE x [<!ENTITY a "aaaa">]><x xmlns="urn:darkroom:image:1/">&a;</x>'
    path.write_bytes(insert_chunks(plain_bytes("png"), [international_text_chunk("XML:com.adobe.xmp", xmp)]))
    with pytest.raises(ReadError, match="entities"):
        read_record(path)


def test_a_sidecar_speaks_for_an_image_that_lost_its_record(sample: Callable[..., Any], tmp_path: Path) -> None:
    made = sample(settings={"sidecar": True})
    path = tmp_path / "stripped.png"
    buffer = io.BytesIO()
    Image.fromarray(made.image.pixels).save(buffer, "png")
    path.write_bytes(buffer.getvalue())
    sidecar = path.with_suffix(".json")
    sidecar.write_bytes(made.encode().sidecar)
    assert read_record(path) == made.record
    path.write_bytes(plain_bytes("png"))
    with pytest.raises(ReadError, match="another image"):
        read_record(path)
    sidecar.write_text('{"my": "notes"}')
    with pytest.raises(NoRecordError):
        read_record(path)


def test_a_sidecar_of_another_image_or_an_edited_one_is_refused(sample: Callable[..., Any], tmp_path: Path) -> None:
    made = sample("long " * 20_000, output_format="jpeg")
    encoded = made.encode()
    path, sidecar = tmp_path / "a.jpeg", tmp_path / "a.json"
    path.write_bytes(encoded.data)
    with pytest.raises(NoRecordError, match="sidecar"):
        read_record(path)
    sidecar.write_bytes(encoded.sidecar.replace(b'"steps":20', b'"steps":21'))
    with pytest.raises(ReadError, match="changed"):
        read_record(path)
    sidecar.write_bytes(sample("other").record.to_json().encode())
    with pytest.raises(ReadError, match="another image"):
        read_record(path)
    sidecar.write_bytes(encoded.sidecar)
    assert read_record(path) == made.record


A1111 = "a red house\nNegative prompt: fog\nSteps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 5, Model: m"


@pytest.mark.parametrize("output_format", FORMATS)
def test_images_of_a1111_are_described(tmp_path: Path, output_format: str) -> None:
    path = tmp_path / f"a1111.{output_format}"
    for seed in ("5", "6"):  # twice: sd-parsers' own JPEG reader would answer with the first text again
        text = A1111.replace("Seed: 5", f"Seed: {seed}")
        if output_format == "png":
            texts = PngInfo()
            texts.add_text("parameters", text)
            path.write_bytes(plain_bytes("png", pnginfo=texts))
        else:
            exif = Image.Exif()
            exif.get_ifd(0x8769)[0x9286] = user_comment(text)
            path.write_bytes(plain_bytes(output_format, exif=exif))
        found = read_any(path)
        assert (found.origin, found.prompt, found.negative_prompt) == ("AUTOMATIC1111", "a red house", "fog")
        assert found.fields["seed"] == seed and found.fields["sampler"] == "Euler a"
        assert found.fields["model"] == "m" and found.record is None


def test_images_of_other_programs_are_described(tmp_path: Path) -> None:
    nodes = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "m.safetensors"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red house", "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "fog", "clip": ["1", 1]}},
        "4": {
            "class_type": "KSampler",
            "inputs": {"sampler_name": "euler", "steps": 20, "cfg": 7, "seed": 5, "model": ["1", 0]}
            | {"positive": ["2", 0], "negative": ["3", 0]},
        },
    }
    links = [[1, 1, 0, 4, 0, "MODEL"], [2, 2, 0, 4, 1, "CONDITIONING"], [3, 3, 0, 4, 2, "CONDITIONING"]]
    invoke = {
        "app_version": "4.2.0",
        "positive_prompt": "a red house",
        "negative_prompt": "fog",
        "seed": 5,
        "steps": 20,
    }
    invoke |= {
        "cfg_scale": 7,
        "scheduler": "euler",
        "model": {"model_name": "m", "name": "m", "hash": "h"},
        "width": 16,
        "height": 16,
    }
    fooocus = {
        "prompt": "a red house",
        "negative_prompt": "fog",
        "base_model": "m",
        "base_model_hash": "h",
        "sampler": "euler",
    }
    fooocus |= {"seed": "5", "steps": 20, "guidance_scale": 4, "version": "Fooocus v2.5"}
    written: dict[str, dict[str, Any]] = {
        "ComfyUI": {"prompt": nodes, "workflow": {"links": links}},
        "InvokeAI": {"invokeai_metadata": invoke},
        "Fooocus": {"parameters": fooocus},
    }
    for origin, chunks in written.items():
        texts = PngInfo()
        for keyword, content in chunks.items():
            texts.add_text(keyword, json.dumps(content))
        path = tmp_path / f"{origin}.png"
        path.write_bytes(plain_bytes("png", pnginfo=texts))
        found = read_any(path)
        assert (found.origin, found.prompt, found.negative_prompt) == (origin, "a red house", "fog")
        assert found.fields["seed"] == "5" and found.fields["steps"] == "20"


@pytest.mark.parametrize("output_format", FORMATS)
def test_our_own_images_are_described_from_the_record(
    sample: Callable[..., Any], tmp_path: Path, output_format: str
) -> None:
    made = sample("Negative prompt: not really", "fog", output_format=output_format)
    path = tmp_path / f"ours.{output_format}"
    path.write_bytes(made.encode().data)
    found = read_any(path)
    assert (found.origin, found.prompt, found.record) == (
        "Darkroom",
        "Negative prompt: not really",
        made.record,
    )
    assert found.fields["seed"] == "965400086" and found.fields["size"] == "40x24"
