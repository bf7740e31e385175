"""Contact sheets with captions, and images side by side with what differs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from manifest_rows import done_of, write_part
from PIL import Image
from recorded_images import save_image

from jobs.archive import sheet
from jobs.archive.compare import compare_images, differences
from jobs.archive.grid_png import GAP_PX, MARGIN_PX
from jobs.archive.sheet import draw_sheet, find_for_sheet
from jobs.manifest.journal import Journal
from pipeline.errors import ConfigError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    journal = Journal(tmp_path / "outputs")
    for n in range(4):
        save_image(journal, tmp_path / "outputs", n, profile="private" if n == 3 else "full")
    journal.close()
    return tmp_path / "outputs"


def test_images_lie_in_the_order_of_the_search(tmp_path: Path) -> None:
    rows = [done_of(n, width=200, height=200) for n in range(3)]
    write_part(tmp_path, "a", rows)
    for row in rows:
        place = tmp_path / str(row["path"])
        place.parent.mkdir(exist_ok=True)
        Image.new("RGB", (200, 200), (0, row["seed"] * 50, 0)).save(place)
    (page,) = draw_sheet(find_for_sheet(tmp_path, sort="-seed"), tmp_path, columns=2)
    assert page.width == 2 * MARGIN_PX + 400 + GAP_PX
    assert [page.getpixel((MARGIN_PX + 10 + n * (200 + GAP_PX), MARGIN_PX + 10)) for n in (0, 1)] == [
        (0, 100, 0),
        (0, 50, 0),
    ]


def test_captions_are_of_chosen_columns_and_keep_private_prompts(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    wrapped = sheet.Lettering.wrapped
    monkeypatch.setattr(
        sheet.Lettering, "wrapped", lambda self, text, *more: told.append(text) or wrapped(self, text, *more)
    )
    rows = find_for_sheet(outputs, caption=("prompt", "steps"), sort="seed")
    list(draw_sheet(rows, outputs, ("prompt", "steps")))
    prompts = [f"a red house, number {n}, 日没" for n in range(3)]
    assert told == [prompts[0], "steps 8", prompts[1], "steps 9", prompts[2], "steps 10", "steps 11"]


def test_a_long_sheet_is_several_pages(outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = find_for_sheet(outputs)
    (whole,) = draw_sheet(rows, outputs, columns=1)
    monkeypatch.setattr(sheet, "MAX_SIDE_PX", whole.height - 100)
    pages = list(draw_sheet(rows, outputs, columns=1))
    assert len(pages) == 2 and sum(page.height for page in pages) > whole.height


def test_a_sheet_from_the_command_line(outputs: Path, tmp_path: Path, darkroom: Run) -> None:
    where = ("--where", "seed < 2", "--png", tmp_path / "s.png", "--output-dir", outputs)
    code, _out, err = darkroom("sheet", "house", *where, "--caption", "model, seed")
    assert (code, err) == (0, "") and (tmp_path / "s.png").is_file()
    code, _, err = darkroom("sheet", "--caption", "seeed", "--output-dir", outputs)
    assert code == 2 and "there is no column 'seeed'; did you mean seed?" in err
    code, _, err = darkroom("sheet", "dragon", "--output-dir", outputs)
    assert code == 2 and "nothing found for a sheet" in err


def test_what_differs_is_told_and_nothing_else(outputs: Path) -> None:
    images = compare_images(["study/0000.png", "study/0001.png"], outputs)
    found = dict(differences(images))
    assert found["steps"] == ["8", "9"] and found["seed"] == ["0", "1"] and found["loras.0.name"] == ["-", "style"]
    assert not {"model.name", "created", "id", "pixels_sha256", "job.id"} & found.keys()


def test_a_private_prompt_is_not_compared(outputs: Path) -> None:
    images = compare_images(["study/0000.png", "study/0003.png"], outputs)
    assert images[0].facts["prompt"].startswith("a red house") and "prompt" not in images[1].facts


@pytest.mark.parametrize("damage", [b"", b"\x89PNG\r\n\x1a\n", b"text"])
def test_a_private_prompt_is_not_told_by_a_damaged_file_either(outputs: Path, damage: bytes, darkroom: Run) -> None:
    (outputs / "study/0003.png").write_bytes(damage)
    assert "prompt" not in compare_images(["study/0000.png", "study/0003.png"], outputs)[1].facts
    for command in (("grid", "--where", "seed >= 2"), ("compare", "study/0002.png", "study/0003.png")):
        code, out, _ = darkroom(*command, "--html", outputs / "page.html", "--output-dir", outputs)
        assert code == 0 and "number 3" not in out + (outputs / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("study/0003.png", "is an image that Darkroom made; give another name"),
        ("study", "is a folder; give the name of a file"),
        (".", "is a folder; give the name of a file"),
        ("study/0000.png/page.png", "cannot be written (File exists)"),
        (f"{'x' * 300}.png", "File name too long"),
    ],
)
def test_no_page_takes_the_place_of_an_image_and_what_cannot_be_written_is_one_line(
    outputs: Path, place: str, why: str, darkroom: Run
) -> None:
    before = {path: path.read_bytes() for path in (outputs / "study").iterdir()}
    for command in (
        ("sheet", "--png"),
        ("grid", "--png"),
        ("grid", "--html"),
        ("grid", "--by", "seconds", "--html"),
        ("compare", "study/0000.png", "study/0001.png", "--html"),
        ("learned", "--export"),
    ):
        code, _, err = darkroom(*command, outputs / place, "--output-dir", outputs)
        assert code == 2 and why in err and err.count("\n") == 1, (command, err)
    assert {path: path.read_bytes() for path in (outputs / "study").iterdir()} == before


def test_comparing_writes_a_page_and_a_picture(outputs: Path, tmp_path: Path, darkroom: Run) -> None:
    named = [outputs / "study/0000.png", outputs / "study/0002.png"]
    files = ("--html", tmp_path / "c.html", "--png", tmp_path / "c.png")
    code, out, err = darkroom("compare", *named, *files, "--output-dir", outputs)
    assert (code, err) == (0, "") and "study/0000.png" in out.splitlines()[0]
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp") == 2 and "<script" not in page and "default-src 'none'" in page
    assert (tmp_path / "c.png").is_file()
    code, _, err = darkroom("compare", named[0], named[0], "--output-dir", outputs)
    assert code == 2 and "give two to 4" in err


def test_a_caption_that_is_no_column_is_refused_and_so_is_an_empty_sheet(outputs: Path) -> None:
    for caption, why in (("zzz", "darkroom search --list-columns prints them all"), ("promt", "did you mean prompt?")):
        with pytest.raises(ConfigError, match=f"^--caption: there is no column '{caption}'; {why}"):
            find_for_sheet(outputs, caption=(caption,))
    with pytest.raises(ConfigError, match="nothing found"):
        find_for_sheet(outputs, "dragon")
