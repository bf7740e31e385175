"""Who is let in, and what a stranger's page, file or prompt can do: nothing."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from drawn_pictures import drawn
from manifest_rows import write_part
from served_gallery import Served, served

from jobs.gallery.access import MAX_BODY_BYTES

HTML = '<img src=x onerror="alert(1)"><script>alert(2)</script>'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of ours, and rows that a stranger has written."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\n secret")
    out = tmp_path_factory.mktemp("out")
    rows = [drawn(out, n) for n in range(4)]
    rows.append(drawn(out, 4, prompt=HTML))
    (out / "study" / "link.png").symlink_to(outside / "secret.png")
    (out / "linked").symlink_to(outside)
    (out / "study" / "text.png").write_text("no picture")
    for n, path in enumerate(("study/link.png", "linked/secret.png", "study/text.png", "study/none.png"), start=5):
        rows.append({**rows[0], "image_id": f"00000000-0000-4000-8000-{n:012d}", "path": path, "file_sha256": "0" * 64})
    for n, path in enumerate(("../outside/secret.png", "/etc/passwd"), start=20):
        rows.append({**rows[0], "image_id": f"00000000-0000-4000-8000-{n:012d}", "path": path, "file_sha256": "1" * 64})
    write_part(out, "a", rows)
    return out


@pytest.fixture(scope="module")
def site(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        with served(folder) as one:
            yield one


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:1", ""])
def test_another_host_is_refused(site: Served, host: str) -> None:
    status, _, content = site.ask("GET", "/api/view", Host=host.format(port=site.own.port))
    assert status in (400, 421) and b"view" not in content


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]"])
def test_its_own_names_are_answered(site: Served, name: str) -> None:
    assert site.ask("GET", "/", Host=f"{name}:{site.own.port}")[0] == 200


@pytest.mark.parametrize("path", ["/", "/api/view", "/api/news", "/static/main.js", "/thumb/x/256", "/nothing"])
@pytest.mark.parametrize("cookie", ["", "darkroom=x", "darkroom_{port}=x", "darkroom_{port}", "a;b=;;=\x01"])
def test_nothing_is_told_without_the_cookie(site: Served, path: str, cookie: str) -> None:
    status, headers, content = site.ask("GET", path, Cookie=cookie.format(port=site.own.port))
    assert status == 403 and "set-cookie" not in headers
    assert site.own.token.encode() not in content and b"study" not in content


def test_the_link_gives_a_cookie_that_scripts_and_other_sites_cannot_use(site: Served) -> None:
    wrong = site.ask("GET", f"/enter/{'x' * 43}", Cookie=None)
    assert wrong[0] == 403 and "set-cookie" not in wrong[1]
    status, headers, content = site.ask("GET", site.own.link.partition(site.own.hosts[0])[2], Cookie=None)
    assert status == 200 and {"HttpOnly", "SameSite=Strict"} <= {*headers["set-cookie"].split("; ")}
    assert site.own.token not in headers["set-cookie"] and site.own.token.encode() not in content


def test_every_answer_forbids_what_is_not_its_own(site: Served) -> None:
    for path in ("/", "/static/main.js", "/api/view", "/nothing"):
        _, headers, _ = site.ask("GET", path)
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers
    assert b"<style" not in site.ask("GET", "/")[2] and b"onclick" not in site.ask("GET", "/")[2]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": None}, 403),
        ({"Origin": None, "Sec_Fetch_Site": "cross-site"}, 403),
        ({"Origin": None, "Sec_Fetch_Site": "same-site"}, 403),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"Cookie": ""}, 403),
        ({"Host": "evil.example"}, 421),
    ],
)
def test_other_pages_cannot_write(site: Served, headers: dict[str, str | None], status: int) -> None:
    mark = {"images": [site.rows()[0]["image_id"]], "kind": "rating", "value": "5"}
    assert site.post("/api/say", mark, **headers)[0] == status
    assert not (site.folder / "manifest" / "ratings").exists()


def test_a_huge_body_is_refused(site: Served) -> None:
    origin = f"http://{site.own.hosts[0]}"
    body = b'{"images": ["' + b"x" * MAX_BODY_BYTES + b'"]}'
    assert site.ask("POST", "/api/say", body, Origin=origin, Content_Type="application/json")[0] == 413
    connection = http.client.HTTPConnection("127.0.0.1", site.own.port, timeout=20)
    headers = {"Cookie": site.cookie, "Origin": origin, "Content-Type": "application/json"}
    chunks = (b"x" * 10_000 for _ in range(10))  # its length is not told beforehand
    connection.request("POST", "/api/say", chunks, headers, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize(
    "query",
    [
        "q=" + "x" * 501,
        "q=" + "+x" * 30,
        "sort=created_at",
        "model=" + "x" * 500,
        "&".join(f"model={n}" for n in range(60)),
        "rating=6",
        "since=yesterday",
        "since=0001-01-01",
        "where=1=1",
        "q=" + "x" * 20_000,
    ],
)
def test_parameters_are_bounded(site: Served, query: str) -> None:
    status, _, content = site.ask("GET", f"/api/view?{query}")
    assert status in (400, 414) and len(content) < 500


def test_words_are_no_sql(site: Served) -> None:
    assert site.rows("q=%27)%20OR%20true%20--") == []
    assert site.rows("model=%27)%20OR%20true%20--") == []
    assert site.rows("tag=%27%5D)%20OR%20true%20--") == []


@pytest.mark.parametrize(
    "path",
    [
        "/picture/../../etc/passwd",
        "/picture/..%2f..%2fetc%2fpasswd",
        "/picture/study/0000.png",
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2fetc%2fpasswd",
        "/static/index.html",
        "/thumb/..%2f..%2f/256",
        "/api/picture/x'%20OR%20true%20--",
    ],
)
def test_no_path_leads_anywhere(site: Served, path: str) -> None:
    status, _, content = site.ask("GET", path)
    assert status == 404 and b"root:" not in content and b"import" not in content


@pytest.mark.parametrize("number", [5, 6, 7, 8, 20, 21])
@pytest.mark.parametrize("address", ["/picture/{}", "/thumb/{}/256"])
def test_a_strangers_manifest_opens_no_other_file(site: Served, number: int, address: str) -> None:
    status, headers, content = site.ask("GET", address.format(f"00000000-0000-4000-8000-{number:012d}"))
    assert status == 404 and headers["content-type"] == "application/json"
    assert b"secret" not in content and str(site.folder).encode() not in content


def test_markup_in_a_prompt_stays_text(site: Served) -> None:
    row = next(row for row in site.rows() if row["prompt"] == HTML)
    assert HTML.encode() not in site.ask("GET", "/")[2]
    _, headers, content = site.ask("GET", f"/api/picture/{row['image_id']}")
    assert headers["content-type"] == "application/json" and json.loads(content)["prompt"] == HTML


def test_nothing_can_be_deleted(site: Served) -> None:
    image_id = site.rows()[0]["image_id"]
    for method in ("DELETE", "PUT", "PATCH", "OPTIONS", "TRACE"):
        assert site.ask(method, f"/picture/{image_id}")[0] == 405
    for kind in ("removed", "undo", "reset"):
        assert site.post("/api/say", {"images": [image_id], "kind": kind, "value": "yes"})[0] == 400
    assert len(list((site.folder / "study").glob("000*.png"))) == 5


def test_scripts_of_the_page_make_no_markup() -> None:
    page = Path(__file__).parents[3] / "jobs" / "gallery" / "page"
    for file in page.glob("*.js"):
        text = file.read_text(encoding="utf-8")
        assert not any(
            word in text for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")
        )
        assert "http://" not in text and "https://" not in text
