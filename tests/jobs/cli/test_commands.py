"""The `darkroom` command as people and scripts call it: output, exit codes, one line per error."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from manifest_rows import attempt_of, done_of, put_image, write_part
from recorded_images import record_of, save_image

from jobs.cli import entry
from jobs.manifest.journal import Journal
from jobs.manifest.schema import FAILED
from pipeline.metadata.encoding import encode_image
from pipeline.metadata.metadata_settings import MetadataSettings
from pipeline.version import VERSION

ROOT = Path(__file__).parents[3]


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Three images with a space and a Japanese word in their paths, and a failure."""
    rows = [
        done_of(n, path=f"my study/{n} 日.png", prompt=f"a [red] house {n}\x1b[31m, sunset\nline") for n in (1, 2, 3)
    ]
    for row in rows:
        put_image(tmp_path, row)
    write_part(tmp_path, "a", [*rows, attempt_of(9, status=FAILED, error_kind="bad_pixels")])
    return tmp_path


def darkroom(
    *arguments: str | Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["darkroom", *map(str, arguments)])
    code = entry.main()
    return code, *capfd.readouterr()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> object:
    return lambda *arguments: darkroom(*arguments, monkeypatch=monkeypatch, capfd=capfd)


def test_json_is_strict_and_complete(outputs: Path, run) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run("search", "sunset", "--format", "json", "--columns", "*", "--output-dir", outputs)
    found = json.loads(out, parse_constant=pytest.fail)
    assert code == 0
    assert [row["seed"] for row in found] == [3, 2, 1]
    assert found[0]["created_at"] == "2026-01-01T00:00:03Z"
    assert found[0]["prompt"] == "a [red] house 3\x1b[31m, sunset\nline"
    assert found[0]["tags"] == ["tests"]


def test_csv_reads_back(outputs: Path, run) -> None:  # type: ignore[no-untyped-def]
    _, out, _ = run(
        "search", "--format", "csv", "--columns", "seed,prompt,tags", "--sort", "seed", "--output-dir", outputs
    )
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["seed"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["prompt"].endswith("sunset\nline")
    assert json.loads(rows[0]["tags"]) == ["tests"]


def test_paths_can_be_opened_from_the_working_folder(
    outputs: Path,
    run,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
) -> None:
    working_folder = outputs / "elsewhere"
    working_folder.mkdir()
    monkeypatch.chdir(working_folder)
    (outputs / "my study/2 日.png").unlink()
    _, out, _ = run("search", "--format", "paths", "--sort", "seed", "--output-dir", "..")
    assert out.splitlines() == ["../my study/1 日.png", "../my study/3 日.png"]
    assert all(Path(line).is_file() for line in out.splitlines())


def test_a_table_shows_one_safe_line_per_image(outputs: Path, run) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run("search", "--output-dir", outputs)
    assert code == 0
    assert len(out.splitlines()) == 4
    assert "a [red] house 1" in out
    assert "\x1b" not in out
    assert err == ""


def test_a_long_table_says_that_it_was_cut(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    write_part(tmp_path, "a", [done_of(n) for n in range(60)])
    _, out, err = run("search", "--output-dir", tmp_path)
    assert (len(out.splitlines()), err) == (51, "the first 50; --limit 0 shows all\n")
    _, out, err = run("search", "--limit", "0", "--output-dir", tmp_path)
    assert (len(out.splitlines()), err) == (61, "")
    _, out, err = run("search", "--format", "paths", "--limit", "5", "--output-dir", tmp_path)
    assert out == "", "their files do not exist"


def test_nothing_found_is_no_error(outputs: Path, run) -> None:  # type: ignore[no-untyped-def]
    assert run("search", "nowhere", "--output-dir", outputs) == (0, "", "nothing found\n")
    assert run("search", "nowhere", "--format", "json", "--output-dir", outputs)[1] == "[]\n"


def test_columns_are_listed_with_what_they_mean(run) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run("search", "--list-columns")
    head, *lines = out.splitlines()
    assert code == 0 and head.split() == ["column", "type", "meaning"] and len(lines) > 50
    assert ["seed", "int64", "0 to 2^53-1"] in [re.split(r" {2,}", line) for line in lines]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--where", "1=1; SELECT 1"], "darkroom: --where '1=1; SELECT 1' was refused: "),
        (["--columns", "promt"], "darkroom: --columns: there is no column 'promt'; did you mean prompt?"),
    ],
)
def test_errors_are_one_line_and_exit_2(arguments: list[str], line: str, outputs: Path, run) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run("search", *arguments, "--output-dir", outputs)
    assert (code, out) == (2, "")
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_verbose_shows_where_an_error_came_from(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    code, _, err = run("-v", "verify", "--output-dir", tmp_path)
    assert code == 2
    assert "Traceback" in err


@pytest.mark.parametrize("command", ["search", "verify", "compact"])
def test_a_folder_without_manifest(command: str, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    code, _, err = run(command, "--output-dir", tmp_path / "nowhere")
    assert code == 2
    assert "no manifest here" in err
    assert err.count("\n") == 1


def test_version_and_completion_are_offered(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    assert run("--version") == (0, f"darkroom {VERSION}\n", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: ("bash", "/bin/bash"))
    assert run("--install-completion")[0] == 0
    assert "darkroom" in (tmp_path / ".bashrc").read_text()


def test_an_unknown_option_exits_2(run) -> None:  # type: ignore[no-untyped-def]
    code, _, err = run("search", "--colour", "red")
    assert code == 2
    assert "No such option" in err


@pytest.mark.parametrize("command", ["search", "show", "reproduce", "verify", "reindex", "compact"])
def test_every_command_explains_itself_with_an_example(command: str, run) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "Examples" in out
    assert f"darkroom {command}" in out
    assert "--output-dir" in out


def test_verify_exits_3_when_something_is_wrong(outputs: Path, run) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run("verify", "--output-dir", outputs)
    assert (code, out) == (0, "3 images: 0 missing, 0 changed\n")
    (outputs / "my study/1 日.png").unlink()
    (outputs / "my study/2 日.png").write_bytes(b"changed")
    (outputs / "my study/extra.png").write_bytes(b"extra")
    code, out, _ = run("verify", "--output-dir", outputs)
    assert code == 3
    assert "missing: my study/1 日.png\n" in out
    assert "changed: my study/2 日.png\n" in out
    assert "no row, and reindex cannot add one: my study/extra.png (it is not a PNG, JPEG or WebP image)\n" in out
    code, out, _ = run("verify", "--json", "--output-dir", outputs)
    report = json.loads(out)
    assert (code, report["sound"], report["missing"]) == (3, False, ["my study/1 日.png"])


def test_verify_says_what_reindex_will_do(several: Path, run) -> None:  # type: ignore[no-untyped-def]
    (several / "copy.png").write_bytes((several / "a/0007.png").read_bytes())
    with Journal(several.with_name("other")) as journal:
        new = several.with_name("other") / str(save_image(journal, several.with_name("other"), 8)["path"])
    (several / "new.png").write_bytes(new.read_bytes())
    Path(os.fsdecode(os.fsencode(several) + b"/\xff.png")).write_bytes(new.read_bytes())
    code, out, _ = run("verify", "--output-dir", several)
    notes = [line.removeprefix("note: no row, ") for line in out.splitlines() if "no row" in line]
    assert (code, notes) == (
        0,
        [
            f"darkroom reindex --output-dir {several} adds it: new.png",
            "and reindex cannot add one: copy.png (a copy of a/0007.png)",
            "and reindex cannot add one: \ufffd.png (its name is not UTF-8; rename it)",
            "and reindex cannot add one: b/1.png (no Darkroom record in it)",
            "and reindex cannot add one: b/2.png (no Darkroom record in it)",
        ],
    )
    code, out, _ = run("reindex", "--output-dir", several)
    assert (code, out.count("unreadable")) == (0, 1) and "2 rows rebuilt from images (1 new)" in out
    assert "/\ufffd.png: its name is not UTF-8; rename it\n" in out
    code, out, _ = run("show", several, "--json")
    assert "\\udcff.png" in out and len(json.loads(out)) == 5


def test_a_private_image_that_was_moved_is_taken_in_and_a_strange_one_is_not(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    with Journal(tmp_path) as journal:
        image = tmp_path / str(save_image(journal, tmp_path, 1, profile="private")["path"])
    image.rename(tmp_path / "b.png")
    with Journal(tmp_path / "runs/other") as journal:
        strange = (
            tmp_path / "runs/other" / str(save_image(journal, tmp_path / "runs/other", 2, profile="private")["path"])
        )
    (tmp_path / "c.png").write_bytes(strange.read_bytes())
    _, out, _ = run("verify", "--output-dir", tmp_path)
    reindex = f"darkroom reindex --output-dir {tmp_path}"
    assert f"no row, {reindex} adds it: b.png\n" in out
    assert "no row, and reindex cannot add one: c.png (no Darkroom record in it)\n" in out
    run("reindex", "--output-dir", tmp_path)
    assert "1 images: 0 missing, 0 changed" in run("verify", "--output-dir", tmp_path)[1]


def test_a_missing_sidecar_is_told(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    pixels = np.zeros((16, 16, 3), np.uint8)
    settings = MetadataSettings()
    record = record_of(1, pixels, settings, "jpeg").model_copy(update={"prompt": "long " * 20_000})
    encoded = encode_image(pixels, record, settings)
    image, sidecar = tmp_path / "a.jpeg", tmp_path / "a.json"
    image.write_bytes(encoded.data)
    assert encoded.sidecar is not None
    sidecar.write_bytes(encoded.sidecar)
    assert "1 rows rebuilt from images (1 new)" in run("reindex", "--output-dir", tmp_path)[1]
    assert run("verify", "--output-dir", tmp_path)[0] == 0
    sidecar.unlink()
    code, out, _ = run("verify", "--output-dir", tmp_path)
    assert code == 3 and "a.jpeg: its record did not fit into the file, and its sidecar a.json is missing\n" in out
    assert "1 kept" in run("reindex", "--output-dir", tmp_path)[1]
    (tmp_path / "lost").mkdir()
    image.rename(tmp_path / "lost/a.jpeg")
    assert "its sidecar a.json is missing\n" in run("reindex", "--output-dir", tmp_path / "lost")[1]


def test_line_ends_of_windows_and_joined_emoji_are_shown_as_they_are(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    settings = MetadataSettings()
    pixels = np.zeros((16, 16, 3), np.uint8)
    prompt = "one\r\ntwo \U0001f468\u200d\U0001f469\u200d\U0001f467"
    record = record_of(1, pixels, settings).model_copy(update={"prompt": prompt})
    (tmp_path / "a.png").write_bytes(encode_image(pixels, record, settings).data)
    _, out, _ = run("show", tmp_path / "a.png")
    assert prompt.replace("\r", "") in out
    assert json.loads(run("show", tmp_path / "a.png", "--json")[1])["prompt"] == prompt


def test_compact_and_reindex_report(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    with Journal(tmp_path, seal_rows=1) as journal:
        for n in range(3):
            save_image(journal, tmp_path, n)
            journal.seal_if_due()
    assert run("compact", "--output-dir", tmp_path) == (0, "3 parts became 1, 3 rows moved\n", "")
    _, out, _ = run("reindex", "--output-dir", tmp_path)
    assert out == "3 rows rebuilt from images (0 new), 0 kept, 0 dropped because their image is gone\n"
    assert json.loads(run("compact", "--json", "--output-dir", tmp_path)[1])["parts_after"] == 1
    assert json.loads(run("reindex", "--json", "--output-dir", tmp_path)[1])["rebuilt"] == 3


@pytest.mark.parametrize("profile", ["full", "private"])
def test_show_explains_an_image_private_ones_from_the_manifest(profile: str, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    with Journal(tmp_path) as journal:
        row = save_image(journal, tmp_path, 7, profile=profile)  # type: ignore[arg-type]
    image = tmp_path / str(row["path"])
    code, out, _ = run("show", image, "--output-dir", tmp_path)
    assert code == 0
    for text in ("number 7, 日没", "DPM++ 2M", "seed:            7", "16 x 16", "style x 0.8", "image 8 of 8"):
        assert text in out
    code, out, _ = run("show", image, "--json", "--output-dir", tmp_path)
    assert json.loads(out) == json.loads(str(row["record_json"]))


def test_letters_that_the_output_has_not_are_written_as_escapes(
    tmp_path: Path,
    run,  # type: ignore[no-untyped-def]
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As into a file on Windows."""
    with Journal(tmp_path) as journal:
        row = save_image(journal, tmp_path, 7)
    with open(1, "w", encoding="ascii", closefd=False) as narrow:
        monkeypatch.setattr(sys, "stdout", narrow)
        code, out, err = run("search", "--format", "csv", "--columns", "prompt", "--output-dir", tmp_path)
        assert (code, out, err) == (0, 'prompt\n"a red house, number 7, \\u65e5\\u6ca1"\n', "")
        assert "\\u65e5" in run("show", tmp_path / str(row["path"]))[1]


def test_show_takes_what_the_manifest_names_and_says_what_it_does_not(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    with Journal(tmp_path) as journal:
        row = save_image(journal, tmp_path, 7, profile="private")
    said = run("show", tmp_path / str(row["path"]), "--output-dir", tmp_path)
    image_id = str(row["image_id"])
    for name in (image_id, image_id[:8], image_id[:8].upper(), row["path"]):
        assert run("show", name, "--output-dir", tmp_path) == said
    code, out, err = run("show", "0" * 8, "none.png", image_id, "--output-dir", tmp_path)
    assert code == 2 and "number 7" in out
    unknown, missing = err.splitlines()
    assert unknown.endswith("00000000: no such image; expected a path, an id, or the first 8 digits of one")
    assert missing.endswith("none.png: cannot be opened (No such file or directory)")
    assert "cannot be opened" in run("show", "0" * 8, "--output-dir", tmp_path / "none")[2]
    (part,) = (tmp_path / "manifest" / "parts").glob("*.parquet")
    part.write_bytes(b"damaged")
    code, out, err = run("show", image_id, "none.png", tmp_path / str(row["path"]), "--output-dir", tmp_path)
    assert code == 2 and err.count("\n") == 3 and "none.png: cannot be opened" in err


def test_show_reads_an_image_of_another_program(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    settings = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 512x512, Model: dream"
    texts.add_text("parameters", f"a castle\x1b[2J\nNegative prompt: blurry\n{settings}")
    Image.new("RGB", (8, 8)).save(tmp_path / "a1111.png", pnginfo=texts)
    code, out, _ = run("show", tmp_path / "a1111.png")
    assert code == 0
    assert "a castle�[2J" in out
    assert "Euler" in out
    _, out, _ = run("show", tmp_path / "a1111.png", "--json")
    assert json.loads(out)["negative_prompt"] == "blurry"


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"text"])
def test_show_of_something_else_is_one_line(content: bytes, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "x.png").write_bytes(content)
    code, out, err = run("show", tmp_path / "x.png", "--output-dir", tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "x.png" in err


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """A folder with an image of ours, one of another program, one that says nothing, and a note."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    with Journal(tmp_path / "all") as journal:
        save_image(journal, tmp_path / "all", 7, folder="a")
    texts = PngInfo()
    settings = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 512x512, Model hash: 31e3, Model: dream"
    texts.add_text("parameters", f"a castle\nNegative prompt: blurry\n{settings}")
    (tmp_path / "all/b").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "all/b/1.png", pnginfo=texts)
    Image.new("RGB", (8, 8)).save(tmp_path / "all/b/2.png")
    (tmp_path / "all/notes.txt").write_text("mine")
    return tmp_path / "all"


def test_show_takes_folders_and_patterns(several: Path, run) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run("show", several, several / "none")
    assert (code, out.count("file:"), out.count("\n\n")) == (2, 2, 1)
    assert "number 7" in out and "a castle" in out
    silent, missing = err.splitlines()
    assert "2.png: no Darkroom record" in silent and "none: cannot be opened" in missing
    code, out, err = run("show", several / "**/1.*", several / "*.gif", "--json")
    (found,) = json.loads(out)
    assert (found["path"], found["prompt"]) == (str(several / "b/1.png"), "a castle")
    assert (code, err.count("\n")) == (2, 1) and "*.gif: means no file" in err


def test_show_as_csv_has_every_setting(several: Path, run) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run("show", several / "a", several / "b/1.png", "--format", "csv")
    ours, theirs = csv.DictReader(io.StringIO(out))
    assert code == 0
    assert (ours["origin"], ours["seed"], ours["scheduler"], ours["size"]) == ("Darkroom", "7", "DPM++ 2M", "16x16")
    assert (theirs["origin"], theirs["scheduler"], theirs["guidance_scale"]) == ("AUTOMATIC1111", "Euler a", "7")
    assert json.loads(theirs["other"]) == {"model_hash": "31e3"}


@pytest.fixture
def impatient() -> Iterator[None]:
    """Whatever waits for ever fails after ten seconds."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("impatient")
def test_a_pipe_called_like_an_image_stops_nothing(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    with Journal(tmp_path) as journal:
        images = [tmp_path / str(save_image(journal, tmp_path, n)["path"]) for n in (1, 2)]
    images[0].unlink()
    pipe = tmp_path / "study/x.png"
    for path in (images[0], pipe, images[1].with_suffix(".json")):
        os.mkfifo(path)
    for command in ("show", "reproduce"):
        for path in (pipe, "/dev/zero"):
            code, out, err = run(command, path, "--output-dir", tmp_path)
            assert (code, out) == (2, "") and err.endswith("cannot be opened (it is no regular file)\n")
    _, out, _ = run("verify", "--output-dir", tmp_path)
    assert "changed: study/0001.png\n" in out and "2 images: 0 missing, 1 changed\n" in out
    code, out, _ = run("reindex", "--output-dir", tmp_path)
    assert code == 0 and out.count("it is no regular file") == 2 and "1 rows rebuilt" in out
    PIL.Image.new("RGB", (8, 8)).save(pipe.with_name("stripped.png"))
    os.mkfifo(pipe.with_name("stripped.json"))
    assert run("show", pipe.with_name("stripped.png"))[0] == 2


def test_a_reader_that_stops_early_is_no_error(outputs: Path) -> None:
    write_part(outputs, "many", [done_of(n) for n in range(100, 3_000)])
    command = f"set -o pipefail; {sys.executable} -m jobs search --format json --output-dir '{outputs}' | head -c 100"
    run = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr, len(run.stdout)) == (0, "", 100)


def test_what_cannot_be_printed_is_one_line(outputs: Path) -> None:
    command = f"{sys.executable} -m jobs search --output-dir '{outputs}' > /dev/full"
    run = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (
        4,
        "darkroom: standard output: cannot be written (No space left on device)\n",
    )


def test_help_and_search_start_light(outputs: Path) -> None:
    heavy = ("torch", "diffusers", "transformers", "pyarrow", "pandas")
    program = f"""
import sys
from jobs.cli.entry import main
try:
    sys.argv = sys.argv[:1] + {{arguments}}
    main()
finally:
    print("heavy:", [name for name in {heavy} + {{forbidden}} if name in sys.modules])
"""
    search = ["search", "--output-dir", str(outputs)]
    for arguments, forbidden in ((["--help"], ("duckdb",)), (search, ("PIL", "pipeline.metadata.record"))):
        run = subprocess.run(
            [sys.executable, "-c", program.format(arguments=arguments, forbidden=forbidden)],
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "100"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.splitlines()[-1] == "heavy: []"
