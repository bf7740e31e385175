"""What stands in a finished file, seen by our own byte parser, by Pillow, by sd-parsers and by ExifTool."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from record_texts import texts

from pipeline.errors import JobFailure
from pipeline.metadata.containers import read_container
from pipeline.metadata.encoding import EncodedImage, encode_image, record_sha256
from pipeline.metadata.infotext import to_infotext
from pipeline.metadata.metadata_settings import MetadataSettings
from pipeline.metadata.reading import NoRecordError, find_record, read_any, read_id, read_pixels, read_record
from pipeline.metadata.record import Record, pixel_hash
from pipeline.metadata.saving import ReadbackFailed, verify_encoded
from pipeline.metadata.xmp import DIGITAL_SOURCE_TYPE
from pipeline.request import LoraWeights

FORMATS = ["png", "jpeg", "webp"]
CORPUS = {
    "ascii": "a red house in hills at sunset",
    "latin-1": "un café à la crème, ångström",
    "cjk": "日本語の猫、夜の街",
    "emoji": "a cat 🐈 with a 👩‍🚀 and 🏳️‍🌈",
    "right to left": "בית אדום על ההרים",
    "marks": 'a "quoted" word, (masterpiece:1.2), key: value, <b> & ]]> \\ %41',
    "spaces": "  a house with blanks around  ",
    "lines": "first line\nsecond line",
    "crlf": "first line\r\nsecond line\rthird",
    "negative inside": "a sign that says\nNegative prompt: nothing\nand more Negative prompt: twice",
    "steps inside": "Steps: 3, Sampler: x, CFG scale: 2, Seed: 7, Size: 8x8\nSteps: to heaven",
    "not in xml": "noncharacters \ufffe \uffff",
    "100 KB": "a long walk through the hills, " * 3300,
}

needs_exiftool = pytest.mark.skipif(
    shutil.which("exiftool") is None, reason="exiftool is not installed (apt install libimage-exiftool-perl)"
)


def exiftool(*arguments: str | Path) -> Any:
    command = ["exiftool", "-j", "-G1", "-a", "-s", *map(str, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout)


def sd_parsers_reads(path: Path) -> Any:
    """As its users do; its JPEG cache is keyed by `id()` and has to be emptied between two files."""
    from sd_parsers import ParserManager
    from sd_parsers.extractors import _jpeg_usercomment

    _jpeg_usercomment._image_id = None
    return ParserManager().parse(path)


def write(sample: Any, tmp_path: Path) -> tuple[Path, EncodedImage]:
    encoded = sample.encode()
    path = tmp_path / f"{sample.record.id}.{sample.record.output.format}"
    path.write_bytes(encoded.data)
    if encoded.sidecar is not None:
        path.with_suffix(".json").write_bytes(encoded.sidecar)
    return path, encoded


def holds_record(encoded: EncodedImage) -> bool:
    """Whether the file itself has the whole record."""
    return find_record(read_container(io.BytesIO(encoded.data))) is not None


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("kind", CORPUS)
def test_any_prompt_comes_back_from_any_format(
    sample: Callable[..., Any], tmp_path: Path, output_format: str, kind: str
) -> None:
    made = sample(CORPUS[kind], CORPUS[kind][:200], output_format=output_format)
    path, encoded = write(made, tmp_path)
    verify_encoded(encoded.data, made.record, made.settings, made.image.pixels)
    assert read_record(path) == made.record
    assert read_record(path).prompt == CORPUS[kind]
    assert holds_record(encoded) == (encoded.sidecar is None)


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("kind", [kind for kind in CORPUS if kind not in ("100 KB",)])
def test_sd_parsers_reads_what_a_user_looks_for(
    sample: Callable[..., Any], tmp_path: Path, output_format: str, kind: str
) -> None:
    made = sample(
        CORPUS[kind],
        "blurry, bad: hands",
        output_format=output_format,
        seed=2**53 - 1,
        scheduler="DPM++ 2M Karras",
    )
    path, _ = write(made, tmp_path)
    info = sd_parsers_reads(path)
    (sampler,) = info.samplers
    assert info.full_negative_prompt == "blurry, bad: hands"
    assert sampler.name == "DPM++ 2M"
    assert sampler.parameters["scheduler"] == "Karras"
    assert str(sampler.parameters["seed"]) == str(2**53 - 1)
    assert str(sampler.parameters["steps"]) == "20"
    assert str(sampler.parameters["cfg_scale"]) == "7.5"
    assert info.metadata["Size"] == "40x24"
    assert sampler.model.name == "demo"
    if kind in ("ascii", "latin-1", "cjk", "emoji", "right to left", "marks", "spaces", "lines"):
        assert info.full_prompt == CORPUS[kind].strip()
    assert "".join(info.full_prompt.split()).startswith("".join(CORPUS[kind].split())[:4])


@pytest.mark.parametrize("output_format", FORMATS)
def test_an_empty_negative_prompt_still_has_its_line(
    sample: Callable[..., Any], tmp_path: Path, output_format: str
) -> None:
    path, _ = write(sample("a house", "", output_format=output_format, seed=0), tmp_path)
    info = sd_parsers_reads(path)
    assert (info.full_prompt, info.full_negative_prompt) == ("a house", "")
    assert str(info.samplers[0].parameters["seed"]) == "0"


def test_png_text_stands_before_the_pixels_and_is_never_compressed(
    sample: Callable[..., Any], parts: Callable[[bytes], list[tuple[str, bytes]]]
) -> None:
    made = sample("un café", "")
    chunks = parts(made.encode().data)
    kinds = [kind for kind, _ in chunks]
    assert kinds[0] == "IHDR" and kinds[-1] == "IEND"
    assert set(kinds[: kinds.index("IDAT")]) == {"IHDR", "tEXt", "iTXt", "eXIf"}
    assert set(kinds[kinds.index("IDAT") :]) == {"IDAT", "IEND"}
    texts = [(kind, *payload.split(b"\x00", 1)) for kind, payload in chunks if kind in ("tEXt", "iTXt")]
    keywords = [keyword.decode() for _, keyword, _ in texts]
    assert keywords[:2] == ["parameters", "darkroom:metadata"]
    assert keywords[-4:] == ["Software", "Creation Time", "Description", "XML:com.adobe.xmp"]
    assert len(set(keywords)) == len(keywords), "Pillow keeps only the last of equal keywords"
    assert all(name.startswith("darkroom:") for name in keywords[1:-4])
    assert not {"prompt", "workflow", "negative_prompt", "Comment"} & set(keywords)
    kind_of = {keyword.decode(): kind for kind, keyword, _ in texts}
    assert kind_of["darkroom:seed"] == "tEXt" and kind_of["darkroom:prompt"] == "iTXt"
    for kind, _, rest in texts:
        if kind == "iTXt":
            assert rest.startswith(b"\x00\x00\x00\x00")
            rest[4:].decode("utf-8")
        else:
            rest.decode("ascii")


def test_individual_fields_and_record_are_plain_text_for_pillow(sample: Callable[..., Any]) -> None:
    made = sample("a house", "fog", clip_skip=2)
    with Image.open(io.BytesIO(made.encode().data)) as image:
        text = dict(image.text)  # type: ignore[attr-defined]
    assert text["darkroom:metadata"] == made.record.to_json()
    assert text["parameters"] == to_infotext(made.record)
    expected = {
        "seed": "965400086",
        "steps": "20",
        "guidance_scale": "7.5",
        "scheduler": "Euler a",
        "clip_skip": "2",
    }
    expected |= {"prompt": "a house", "negative_prompt": "fog", "id": made.record.id, "width": "40"}
    assert {name: text[f"darkroom:{name}"] for name in expected} == expected
    assert text["Creation Time"] == "2025-01-11T14:30:22Z"
    assert text["Software"] == "darkroom 0.1.0"


@pytest.mark.parametrize("output_format", FORMATS)
def test_exif_holds_the_infotext_the_way_that_a1111_reads_it(
    sample: Callable[..., Any], parts: Callable[[bytes], list[tuple[str, bytes]]], output_format: str
) -> None:
    made = sample("un café 🐈", output_format=output_format)
    data = made.encode().data
    found = dict(reversed(parts(data)))
    block = {"png": found.get("eXIf"), "jpeg": found.get("E1"), "webp": found.get("EXIF")}[output_format]
    assert block is not None
    assert block.startswith(b"Exif\x00\x00MM\x00*" if output_format == "jpeg" else b"MM\x00*")
    with Image.open(io.BytesIO(data)) as image:
        exif = image.getexif()
        photo = exif.get_ifd(0x8769)
    assert photo[0x9286] == b"UNICODE\x00" + to_infotext(made.record).encode("utf-16-be")
    assert exif[0x010E].encode("latin-1").decode("utf-8") == "un café 🐈"
    assert exif[0x0132] == photo[0x9003] == "2025:01:11 14:30:22"
    assert photo[0x9010] == photo[0x9011] == "+00:00"
    assert not {0x010F, 0x0110, 0x013B, 0x927C} & (set(exif) | set(photo)), "tags that other readers dispatch on"
    assert "FE" not in found, "a JPEG comment makes prompt-reader take it for Fooocus"


@pytest.mark.parametrize("output_format", FORMATS)
def test_exif_bmp_only_keeps_exiv2_working(sample: Callable[..., Any], output_format: str) -> None:
    made = sample("a 🐈 cat", output_format=output_format, settings={"exif_bmp_only": True})
    with Image.open(io.BytesIO(made.encode().data)) as image:
        comment = image.getexif().get_ifd(0x8769)[0x9286]
    assert comment[8:].decode("utf-16-be").startswith("a \ufffd cat")


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("profile", ["full", "minimal", "private"])
def test_every_profile_carries_the_ai_mark(sample: Callable[..., Any], output_format: str, profile: str) -> None:
    made = sample(output_format=output_format, profile=profile)
    data = made.encode().data
    assert data.count(DIGITAL_SOURCE_TYPE.encode()) == 1
    with Image.open(io.BytesIO(data)) as image:
        assert DIGITAL_SOURCE_TYPE.encode() in image.info["xmp"]
    assert (b"AISystemUsed" in data) == (profile != "private")
    assert (b"AIPromptInformation" in data) == (profile == "full")
    assert b"AIPromptWriterName" not in data
    assert b"<rdf:li>" not in data, "SD.Next appends bare items to the prompt"


@pytest.mark.parametrize("output_format", FORMATS)
def test_minimal_keeps_the_record_and_hides_the_prompt_from_the_views(
    sample: Callable[..., Any], tmp_path: Path, output_format: str
) -> None:
    made = sample("purple zebra", "orange fog", output_format=output_format, profile="minimal")
    path, encoded = write(made, tmp_path)
    assert read_record(path).prompt == "purple zebra"
    info = sd_parsers_reads(path)
    assert (info.full_prompt, info.full_negative_prompt) == ("", "")
    assert str(info.samplers[0].parameters["seed"]) == "965400086"
    assert encoded.data.count(b"purple zebra") == 1, "the record alone"
    assert "purple zebra".encode("utf-16-be") not in encoded.data


@pytest.mark.parametrize("output_format", FORMATS)
def test_private_holds_an_id_and_the_mark_and_nothing_else(
    sample: Callable[..., Any],
    parts: Callable[[bytes], list[tuple[str, bytes]]],
    tmp_path: Path,
    output_format: str,
) -> None:
    made = sample("purple zebra", "fog", output_format=output_format, profile="private")
    path, encoded = write(made, tmp_path)
    verify_encoded(encoded.data, made.record, made.settings, made.image.pixels)
    assert encoded.sidecar is None and not holds_record(encoded)
    assert read_id(path) == made.record.id
    for word in ("zebra", "fog", "965400086", "2025", "Euler", "demo", "0.1.0", made.record.pixels_sha256):
        assert word.encode() not in encoded.data and word.encode("utf-16-be") not in encoded.data
    kinds = {kind for kind, _ in parts(encoded.data)}
    allowed = {
        "png": {"IHDR", "tEXt", "iTXt", "IDAT", "IEND"},
        "jpeg": {"E0", "E1", "DB", "C0", "C4"},
        "webp": {"VP8X", "VP8 ", "XMP "},
    }
    assert kinds == allowed[output_format]


@needs_exiftool
@pytest.mark.parametrize("output_format", FORMATS)
def test_exiftool_sees_nothing_else_in_a_private_image(
    sample: Callable[..., Any], tmp_path: Path, output_format: str
) -> None:
    path, _ = write(sample(output_format=output_format, profile="private"), tmp_path)
    (tags,) = exiftool(path)
    told = {
        name for name in tags if not name.startswith(("ExifTool:", "System:", "File:", "Composite:", "JFIF:", "RIFF:"))
    }
    told -= {"SourceFile"}
    shape = {"Width", "Height", "BitDepth", "ColorType", "Compression", "Filter", "Interlace"}
    told = {name for name in told if name.partition(":")[2].removeprefix("Image") not in shape}
    assert told == {
        "XMP-iptcExt:DigitalSourceType",
        "PNG:Darkroomid" if output_format == "png" else "XMP-darkroom:Id",
    }


@needs_exiftool
@pytest.mark.parametrize("profile", ["full", "minimal", "private"])
def test_exiftool_finds_every_file_valid(sample: Callable[..., Any], tmp_path: Path, profile: str) -> None:
    prompts = [CORPUS[kind] for kind in ("ascii", "emoji", "marks", "100 KB")]
    paths = [
        write(sample(prompt, "fog", output_format=output_format, profile=profile), tmp_path)[0]
        for prompt in prompts
        for output_format in FORMATS
    ]
    for tags in exiftool("-validate", "-warning", "-error", *paths):
        warnings = {value for name, value in tags.items() if name.endswith(("Warning", "Error"))}
        # PNG's own specification recommends this form; ExifTool expects EXIF's.
        assert warnings <= {"[minor] Non standard PNG date/time format"}, tags


@needs_exiftool
@pytest.mark.parametrize("output_format", FORMATS)
def test_exiftool_reads_the_standard_fields(sample: Callable[..., Any], tmp_path: Path, output_format: str) -> None:
    path, _ = write(sample("un café 🐈", "fog", output_format=output_format), tmp_path)
    (tags,) = exiftool(path)
    assert tags["IFD0:ImageDescription"] == "un café 🐈" == tags["XMP-dc:Description"]
    assert tags["IFD0:Software"] == "darkroom 0.1.0" == tags["XMP-xmp:CreatorTool"]
    assert tags["IFD0:ModifyDate"] == "2025:01:11 14:30:22"
    assert tags["ExifIFD:OffsetTimeOriginal"] == "+00:00"
    assert tags["XMP-iptcExt:DigitalSourceType"] == DIGITAL_SOURCE_TYPE
    assert tags["ExifIFD:UserComment"].startswith("un café 🐈")
    if output_format != "png":
        assert str(tags["XMP-darkroom:Seed"]) == "965400086"


def test_a_jpeg_without_room_names_its_sidecar(sample: Callable[..., Any], tmp_path: Path) -> None:
    made = sample(CORPUS["100 KB"], CORPUS["100 KB"], output_format="jpeg")
    path, encoded = write(made, tmp_path)
    assert not holds_record(encoded) and encoded.sidecar is not None
    verify_encoded(encoded.data, made.record, made.settings, made.image.pixels)
    assert record_sha256(made.record).encode() in encoded.data
    assert read_record(path) == made.record
    assert read_id(path) == made.record.id
    info = sd_parsers_reads(path)
    assert info.full_prompt.startswith("a long walk") and info.full_prompt.endswith("…")
    assert str(info.samplers[0].parameters["seed"]) == "965400086"


def test_a_jpeg_without_its_sidecar_is_not_taken_for_another_programs(
    sample: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "lonely.jpeg"
    path.write_bytes(sample(CORPUS["100 KB"], CORPUS["100 KB"], output_format="jpeg").encode().data)
    with pytest.raises(NoRecordError, match=r"its sidecar lonely\.json is missing"):
        read_any(path)


@pytest.mark.parametrize("character", ["&", "猫", "🐈", '"', "a"])
def test_a_jpeg_takes_prompts_of_any_length(sample: Callable[..., Any], character: str) -> None:
    for length in (3_000, 10_000, 30_000, 100_000):
        made = sample(character * length, character * length, output_format="jpeg")
        encoded = made.encode()
        verify_encoded(encoded.data, made.record, made.settings, made.image.pixels)
        assert holds_record(encoded) == (encoded.sidecar is None)


def test_a_jpeg_that_cannot_hold_its_settings_fails_in_one_line(sample: Callable[..., Any]) -> None:
    loras = tuple(LoraWeights(f"style {number:04d} " + "x" * 80, "", "0" * 64, 0.5) for number in range(500))
    with pytest.raises(JobFailure, match=r"use output\.format=png"):
        sample(output_format="jpeg", loras=loras).encode()
    assert holds_record(sample(output_format="png", loras=loras).encode())


def test_a_sidecar_is_written_on_request_and_is_the_record(sample: Callable[..., Any]) -> None:
    made = sample(settings={"sidecar": True})
    sidecar = made.encode().sidecar
    assert sidecar is not None and Record.from_json(sidecar) == made.record


@pytest.mark.parametrize("output_format", FORMATS)
def test_equal_input_gives_equal_bytes(sample: Callable[..., Any], output_format: str) -> None:
    one = sample(output_format=output_format, image_id=str(uuid.UUID(int=5)))
    two = sample(output_format=output_format, image_id=str(uuid.UUID(int=5)))
    assert one.encode() == two.encode()


@pytest.mark.parametrize(("output_format", "lossless"), [("png", False), ("webp", True)])
def test_lossless_formats_give_the_pixels_back(
    sample: Callable[..., Any], tmp_path: Path, output_format: str, lossless: bool
) -> None:
    made = sample(output_format=output_format, settings={"lossless": lossless})
    path, _ = write(made, tmp_path)
    pixels = read_pixels(path)
    assert np.array_equal(pixels, made.image.pixels)
    assert pixel_hash(40, 24, pixels.tobytes()) == read_record(path).pixels_sha256
    assert made.record.output.quality is None


def test_verifying_refuses_every_kind_of_difference(sample: Callable[..., Any]) -> None:
    made = sample()
    data = made.encode().data
    other = sample("another prompt")
    with pytest.raises(ReadbackFailed, match="id"):
        verify_encoded(data, other.record, made.settings, made.image.pixels)
    changed = made.record.model_copy(update={"seed": 1})
    with pytest.raises(ReadbackFailed, match="record"):
        verify_encoded(data, changed, made.settings, made.image.pixels)
    wrong_pixels = made.record.model_copy(update={"pixels_sha256": "0" * 64})
    with pytest.raises(ReadbackFailed, match="pixels"):
        verify_encoded(data, wrong_pixels, made.settings, made.image.pixels)
    with pytest.raises(ReadbackFailed, match="truncated"):
        verify_encoded(data[:-20], made.record, made.settings, made.image.pixels)
    with pytest.raises(ReadbackFailed, match="private"):
        verify_encoded(data, made.record, MetadataSettings(profile="private"), made.image.pixels)
    assert ReadbackFailed.kind == "readback"


def test_pixels_or_settings_of_another_record_are_a_mistake(sample: Callable[..., Any]) -> None:
    made = sample()
    with pytest.raises(ValueError, match="40x24"):
        encode_image(made.image.pixels[:8], made.record, made.settings)
    with pytest.raises(ValueError, match="quality"):
        encode_image(made.image.pixels, sample(output_format="jpeg").record, MetadataSettings(quality=10))


@given(
    prompt=texts(80),
    negative_prompt=texts(40),
    output_format=st.sampled_from(FORMATS),
    seed=st.integers(0, 2**53 - 1),
    profile=st.sampled_from(["full", "minimal"]),
)
def test_whatever_the_text_the_record_comes_back(
    sample: Callable[..., Any], prompt: str, negative_prompt: str, output_format: str, seed: int, profile: str
) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    made = sample(
        prompt,
        negative_prompt,
        output_format=output_format,
        seed=seed,
        profile=profile,
        pixels=pixels,
        tags=(prompt,),
    )
    verify_encoded(made.encode().data, made.record, made.settings, pixels)
