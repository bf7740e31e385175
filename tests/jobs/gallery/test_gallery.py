"""What the gallery finds, counts, shows, follows and writes."""

from __future__ import annotations

import hashlib
import io
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import PIL.Image
import PIL.PngImagePlugin
import pytest
from carded_models import scanned
from drawn_pictures import draw, drawn
from manifest_rows import attempt_of, write_part
from recorded_images import save_image
from served_gallery import Served, served
from small_weights import write_demo

from jobs.archive.search import search
from jobs.gallery.filters import Filter
from jobs.gallery.index import Index
from jobs.gallery.views import Views
from jobs.manifest.compaction import compact
from jobs.manifest.journal import Journal
from jobs.manifest.schema import FAILED
from jobs.running.run_folder import RunFolder

Darkroom = Callable[..., tuple[int, str, str]]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Served]:
    """Twenty pictures."""
    draw(tmp_path / "out", range(20))
    with served(tmp_path / "out") as one:
        yield one


def counts(site: Served, facet: str, query: str = "") -> dict[str, int]:
    found = site.get(f"/api/facets?{query}")[1]["facets"]
    return {value: count for one in found if one["name"] == facet for value, count in one["values"] if count}


def test_words_facets_days_and_orders_find_pictures(site: Served) -> None:
    def seeds(query: str) -> list[int]:
        return [row["seed"] for row in site.rows(query)]

    assert seeds("") == [*range(19, -1, -1)] and seeds("sort=oldest") == [*range(20)]
    assert seeds("q=BOAT+sea") == [16, 11, 6, 1] and seeds("q=castle+boat") == []
    assert seeds("model=sdxl&steps=8") == [16, 10, 4]
    assert seeds("model=sdxl&model=demo&tag=boat") == [16, 6, 1]
    assert seeds("lora=ink-wash&sort=oldest") == [0, 4, 8, 12, 16]
    assert seeds("trait=lighting:+neon&tag=castle") == [17, 2]
    assert seeds("since=2026-01-01&until=2026-01-01") == [*range(19, -1, -1)] and seeds("since=2026-01-02") == []


def test_a_facet_is_counted_without_its_own_choice(site: Served) -> None:
    assert counts(site, "model") == {"demo": 7, "sdxl": 7, "dreamshaper": 6}
    assert counts(site, "model", "model=sdxl&steps=8") == {"demo": 4, "sdxl": 3, "dreamshaper": 3}
    assert counts(site, "steps", "model=sdxl&steps=8") == {"8": 3, "20": 4}
    assert counts(site, "model", "q=boat") == {"sdxl": 2, "demo": 1, "dreamshaper": 1}
    assert counts(site, "size") == {"64 × 48": 20} and counts(site, "lora") == {"ink-wash": 5}
    assert counts(site, "trait") == {"medium: watercolour": 6, "lighting: neon": 6}, "only what is of a closed list"


def test_a_view_stays_as_it_was_while_pictures_arrive(site: Served) -> None:
    _, view = site.get("/api/view")
    draw(site.folder, range(20, 23), "b")
    site.until(lambda: site.get("/api/news")[1]["pictures"] == 23)
    _, before = site.get(f"/api/page?view={view['view']}&start=0&count=3")
    assert [row["seed"] for row in before["rows"]] == [19, 18, 17]
    _, now = site.get(f"/api/view?keep={before['rows'][0]['image_id']}")
    assert (now["count"], now["place"]) == (23, 3)
    assert site.get("/api/page?view=none&start=0&count=3")[0] == 410


def test_the_index_follows_journals_seals_compactions_and_losses(tmp_path: Path) -> None:
    out = tmp_path / "out"
    draw(out, range(3))
    index = Index(out)

    def pictures() -> int:
        index.refresh()
        return index.count()

    assert pictures() == 3
    with Journal(out) as journal:
        for n in range(3, 6):
            row = drawn(out, n)
            journal.start([attempt_of(n)])
            journal.intend(row)
            journal.commit(str(row["image_id"]))
            assert pictures() == n + 1
    assert pictures() == 6, "sealed, they are the same"
    numbers = index.pictures_version
    compact(out)
    assert pictures() == 6 and index.pictures_version == numbers, "so are they when compacted"
    index.close()

    index = Index(out)
    assert index.count() == 6, "what was read is kept"
    for part in (out / "manifest" / "parts").glob("*.parquet"):
        part.unlink()
    draw(out, range(2), "z")
    assert pictures() == 2, "pictures that are no longer in the manifest are not here"
    index.close()


def test_a_folder_that_was_deleted_and_made_anew_has_its_own_pictures(tmp_path: Path) -> None:
    """The index that is kept of the old one knows its last pictures from a journal, which was sealed after it ended."""
    out = tmp_path / "out"

    def write(n: int) -> None:
        with Journal(out) as journal:
            row = drawn(out, n)
            journal.start([attempt_of(n)])
            journal.intend(row)
            journal.commit(str(row["image_id"]))
            assert seeds() == [n]

    def seeds() -> list[int]:
        index = Index(out)
        index.refresh()
        try:
            view = Views(index).view(Filter())
            return [row["seed"] for row in Views(index).page(view, 0, 9)]
        finally:
            index.close()

    out.mkdir()
    write(1)
    shutil.rmtree(out)
    out.mkdir()
    assert seeds() == []
    write(2)
    shutil.rmtree(out)
    out.mkdir()
    write(3)
    index = Index(out)
    index.refresh()
    version = index.pictures_version
    shutil.rmtree(out / "manifest")
    index.refresh()
    assert index.pictures_version > version and index.count() == 0, "also while it is looked at"
    index.close()


def test_where_another_gallery_has_the_index_a_second_one_is_made(tmp_path: Path, own_cache: Path) -> None:
    draw(tmp_path / "out", range(3))
    Index(tmp_path / "out").close()
    (file,) = own_cache.rglob("*.duckdb")
    holding = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", holding, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline()
        with served(tmp_path / "out") as site:
            assert len(site.rows()) == 3
        other.communicate(b"")


def test_a_damaged_index_is_made_anew(tmp_path: Path, own_cache: Path) -> None:
    draw(tmp_path / "out", range(3))
    Index(tmp_path / "out").close()
    (file,) = own_cache.rglob("*.duckdb")
    file.write_bytes(b"no database" * 1000)
    with served(tmp_path / "out") as site:
        assert len(site.rows()) == 3


def test_a_folder_without_pictures_waits_for_them(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with served(tmp_path / "out") as site:
        assert site.rows() == []
        draw(tmp_path / "out", range(2))
        site.until(lambda: len(site.rows()) == 2)


def test_what_is_said_is_what_search_finds(site: Served, darkroom: Darkroom) -> None:
    first, second, third = (row["image_id"] for row in site.rows()[:3])
    for mark in (
        {"images": [first, second], "kind": "rating", "value": "4"},
        {"images": [second], "kind": "rating", "value": "none"},
        {"images": [second], "kind": "reject", "value": "yes"},
        {"images": [third], "kind": "pick", "value": "yes"},
        {"images": [third], "kind": "tag", "value": "+keep +sea"},
        {"images": [third], "kind": "tag", "value": "-sea"},
    ):
        assert site.post("/api/say", mark) == (200, {"said": len(mark["images"])})
    rated = list(search(site.folder, where="rating >= 4", columns=("image_id",)))
    assert [row["image_id"] for row in rated] == [first]
    code, out, _ = darkroom("search", "--where", "picked", "--columns", "seed,user_tags", "--output-dir", site.folder)
    assert code == 0 and "17" in out and "keep" in out
    site.until(lambda: counts(site, "rating") == {"4": 1, "unrated": 17, "picked": 1, "rejected": 1})
    assert counts(site, "tag")["keep"] == 1
    assert [row["image_id"] for row in site.rows("rating=4&rating=picked")] == [first, third]
    assert site.rows("sort=rating")[0]["image_id"] == first and len(site.rows("rating=unrated")) == 17
    assert site.rows("tag=keep")[0]["user_tags"] == ["keep"]
    assert site.post("/api/say", {"images": [third], "kind": "pick", "value": "no"})[0] == 200
    site.until(lambda: site.rows("rating=picked") == [])


def test_what_cannot_be_said_is_one_line(site: Served) -> None:
    image_id = site.rows()[0]["image_id"]
    wrong: list[dict[str, object]] = [
        {"kind": "rating", "value": "6"},
        {"kind": "rating", "value": "-1"},
        {"kind": "tag", "value": "sea"},
        {"kind": "tag", "value": ""},
        {"kind": "tag", "value": "+" + "x" * 101},
        {"kind": "pick", "value": "maybe"},
        {"kind": "note", "value": "x" * 2001},
        {"kind": "rating", "value": "4", "more": 1},
        {"kind": "rating", "value": "4", "images": []},
        {"kind": "rating", "value": "4", "images": ["00000000-0000-4000-8000-000000000000"]},
        {"kind": "rating", "value": "4", "images": ["../x"]},
    ]
    for mark in wrong:
        status, answer = site.post("/api/say", {"images": [image_id], **mark})
        assert status == 400 and answer["error"] and "\n" not in answer["error"], mark
    assert not (site.folder / "manifest" / "ratings").exists()


def test_a_removed_picture_is_not_shown(site: Served, darkroom: Darkroom) -> None:
    image_id = site.rows()[0]["image_id"]
    site.post("/api/say", {"images": [image_id], "kind": "reject", "value": "yes"})
    assert darkroom("remove-rejected", "--yes", "--output-dir", site.folder)[0] == 0
    site.until(lambda: len(site.rows()) == 19)


def test_a_thumbnail_is_small_kept_and_says_nothing(tmp_path: Path, own_cache: Path) -> None:
    out = tmp_path / "out"
    row = drawn(out, 1)
    info = PIL.PngImagePlugin.PngInfo()
    info.add_text("parameters", "a secret recipe")
    PIL.Image.new("RGB", (900, 600), "red").save(out / "study" / "0001.png", pnginfo=info)
    row["file_sha256"] = hashlib.sha256((out / "study" / "0001.png").read_bytes()).hexdigest()
    write_part(out, "a", [row])
    with served(out) as site:
        address = f"/thumb/{row['image_id']}/256"
        status, headers, content = site.ask("GET", address)
        with PIL.Image.open(io.BytesIO(content)) as small:
            assert (status, headers["content-type"], small.format, small.size) == (
                200,
                "image/webp",
                "WEBP",
                (256, 171),
            )
        assert b"secret" not in content and b"EXIF" not in content
        (kept,) = own_cache.rglob(f"{row['file_sha256']}-256.webp")
        assert kept.read_bytes() == content
        (out / "study" / "0001.png").unlink()
        assert site.ask("GET", address)[2] == content
        assert site.ask("GET", f"/picture/{row['image_id']}")[0] == 404
        assert site.ask("GET", f"/thumb/{row['image_id']}/4096")[0] == 404


def test_a_file_that_is_not_the_saved_one_is_no_thumbnail_of_another(tmp_path: Path, own_cache: Path) -> None:
    out = tmp_path / "out"
    write_part(out, "a", [row := drawn(out, 1, file_sha256="a" * 64)])
    with served(out) as site:
        assert site.ask("GET", f"/thumb/{row['image_id']}/256")[0] == 200
    assert not list(own_cache.rglob("*.webp"))


def test_the_panel_says_how_and_why_and_what_failed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    row = drawn(out, 2)
    failed = attempt_of(2, status=FAILED, error_kind="out_of_memory", error_message="GPU memory ran out")
    write_part(out, "a", [failed, row])
    with served(out) as site:
        _, found = site.get(f"/api/picture/{row['image_id']}")
    assert found["recipe"] == (
        "dreamshaper made it in 8 steps with DPM++ 2M at guidance 3, 64 × 48 pixels, from seed 2. It took 1.0 s."
    )
    assert found["reasons"].startswith("dreamshaper (2.10) before sdxl (1.20): made for watercolour (+1.10).")
    assert [(one["error_kind"], one["error_message"]) for one in found["failures"]] == [
        ("out_of_memory", "GPU memory ran out")
    ]
    commands = {one["does"]: one["command"] for one in found["commands"]}
    assert commands["Make it again"] == f"darkroom reproduce {out}/study/0002.png --output-dir {out}"
    assert commands["More like this"] == f"darkroom more {out}/study/0002.png seeds=4 --output-dir {out}"


def test_the_panel_shows_the_whole_record(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Journal(out) as journal:
        row = save_image(journal, out, 3)
    with served(out) as site:
        _, found = site.get(f"/api/picture/{row['image_id']}")
        assert site.ask("GET", f"/picture/{row['image_id']}")[2] == (out / str(row["path"])).read_bytes()
    facts = dict(found["facts"])
    assert (facts["scheduler"], facts["seed"], facts["clip skip"]) == ("DPM++ 2M", "3", "1")
    assert found["negative_prompt"] == "blurry" and "prompt" not in facts


def test_a_choice_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    out = tmp_path / "out"
    texts = ["{", "[]", '{"choice": {"model": 1}}', "[" * 100_000, '{"analysis": {"medium": 7}}', "\x00"]
    rows = [drawn(out, n, selection=text, record_json="{]") for n, text in enumerate(texts)]
    write_part(out, "a", rows)
    with served(out) as site:
        for row in rows:
            _, found = site.get(f"/api/picture/{row['image_id']}")
            assert (found["reasons"], found["facts"]) == ("", [])
        assert counts(site, "trait") == {}


def test_the_command_for_more_has_closed_keys(site: Served) -> None:
    image_id = site.rows()[0]["image_id"]
    asked = {"image": image_id, "seeds": 3, "steps": 40, "guidance_scale": 4.5, "scheduler": "Euler a", "model": "sdxl"}
    place = site.folder / "study" / "0019.png"
    assert site.post("/api/more", asked)[1]["command"] == (
        f"darkroom more {place} seeds=3 sampling.steps=40 sampling.guidance_scale=4.5 "
        f"\"sampling.scheduler='Euler a'\" model=sdxl --output-dir {site.folder}".replace(
            "\"sampling.scheduler='Euler a'\"", "'sampling.scheduler='\"'\"'Euler a'\"'\"''"
        )
    )
    wrongs = ({"seeds": 0}, {"seeds": 65}, {"steps": 0}, {"model": "../x"}, {"model": "x y"}, {"model": "nosuch"})
    for wrong in (*wrongs, {"prompt": "x"}, {"width": 7}, {"scheduler": "Eular"}):
        assert site.post("/api/more", {"image": image_id, **wrong})[0] == 400
    assert site.post("/api/make", asked)[0] == 403, "it was not started with --make"


def test_models_of_this_machine_are_offered_by_name(site: Served, tmp_path: Path) -> None:
    for name in ("dream_8", "a/twice", "b/twice", "its name, {x}"):
        write_demo(tmp_path / "models" / name)
    scanned(tmp_path / "models")
    offered = site.get("/api/choices")[1]
    assert {"demo", "dream_8"} == {*offered["models"]} and "Euler a" in offered["schedulers"]
    asked = {"image": site.rows()[0]["image_id"], "model": "dream_8"}
    assert site.post("/api/more", asked)[1]["command"].endswith(
        f"seeds=4 model=custom model.source=dream_8 --output-dir {site.folder}"
    )
    assert site.post("/api/more", {**asked, "model": "twice"})[0] == 400


@pytest.mark.slow
def test_a_run_at_work_is_seen(site: Served) -> None:
    assert site.get("/api/news")[1]["runs"] == []
    run = RunFolder(site.folder, "20260102T000000Z-bbbbbbbb")
    run.begin([], {"to_make": 5})
    try:
        with Journal(site.folder) as journal:
            row = drawn(site.folder, 50, run_id="20260102T000000Z-bbbbbbbb")
            journal.start([attempt_of(50, run_id="20260102T000000Z-bbbbbbbb")])
            journal.intend(row)
            journal.commit(str(row["image_id"]))
            expected = {"id": "20260102T000000Z-bbbbbbbb", "made": 1, "failed": 0, "left": 4}
            site.until(lambda: site.get("/api/news")[1]["runs"] == [expected])
    finally:
        run.close()
    site.until(lambda: site.get("/api/news")[1]["runs"] == [])


def test_a_run_is_started_once_and_its_output_is_in_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    draw(out, range(1))
    package = tmp_path / "python"
    (package / "jobs").mkdir(parents=True)
    (package / "jobs" / "__init__.py").touch()
    (package / "jobs" / "__main__.py").write_text(
        "import sys, time, pathlib\nprint('asked', sys.argv[1:], flush=True)\n"
        f"end = pathlib.Path({str(tmp_path / 'end')!r})\nwhile not end.exists(): time.sleep(0.05)\nsys.exit(3)\n"
    )
    with served(out, may_make=True) as site:
        image_id = site.rows()[0]["image_id"]
        assert site.get("/api/news")[1]["making"] is None
        monkeypatch.chdir(package)  # `python -m jobs` is the package there
        monkeypatch.delenv("PYTHONPATH", raising=False)
        assert site.post("/api/make", {"image": image_id, "steps": 12})[0] == 200
        status, answer = site.post("/api/make", {"image": image_id})
        assert status == 400 and answer["error"].startswith("one run at a time")

        def making() -> dict[str, object]:
            return dict(site.get("/api/news")[1]["making"])

        expected = f"asked {['more', image_id, 'seeds=4', 'sampling.steps=12', '--output-dir', str(out)]}"
        site.until(lambda: making()["lines"] == [expected])
        assert making()["code"] is None
        (tmp_path / "end").touch()
        site.until(lambda: making()["code"] == 3)


def test_a_folder_that_is_none_and_a_port_that_is_taken_are_one_line(tmp_path: Path, darkroom: Darkroom) -> None:
    code, _, err = darkroom("gallery", "--output-dir", tmp_path / "none")
    assert code == 2 and "is no folder" in err and err.count("\n") == 1
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = darkroom("gallery", "--output-dir", tmp_path, "--port", port, "--no-browser")
    assert code == 2 and f"--port {port}: " in err and err.count("\n") == 1


def test_the_command_serves_until_ctrl_c(tmp_path: Path) -> None:
    draw(tmp_path / "out", range(2))
    command = [sys.executable, "-m", "jobs", "gallery", "--output-dir", str(tmp_path / "out"), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stderr is not None
        link = running.stdout.readline().rpartition(" ")[2].strip()
        with urllib.request.urlopen(link, timeout=30) as answer:
            assert answer.status == 200 and answer.headers["set-cookie"]
        running.send_signal(signal.SIGINT)
        assert (running.wait(30), running.stderr.read()) == (0, "")
