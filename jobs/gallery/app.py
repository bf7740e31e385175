"""The addresses of the gallery and what they answer. None holds a path: pictures are asked for by their ids.

Everything that takes time runs in threads, so that a decoded picture delays no answer.
"""

from __future__ import annotations

import importlib.resources
import json
import math
import re
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.archive.pictures import read_picture
from jobs.archive.runs import running_runs
from jobs.gallery import details, making, marks
from jobs.gallery.access import ENTER, Access, Pass
from jobs.gallery.filters import FACETS, SORTS, read_filter
from jobs.gallery.grids import Grids
from jobs.gallery.index import Index
from jobs.gallery.pictures import SIZES, thumbnail
from jobs.gallery.views import MAX_PAGE, Views
from pipeline.errors import ConfigError, DarkroomError, ReadError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

STATIC = {
    "style.css": "text/css",
    "main.js": "text/javascript",
    "server.js": "text/javascript",
    "wall.js": "text/javascript",
    "grid.js": "text/javascript",
    "filters.js": "text/javascript",
    "viewer.js": "text/javascript",
    "compare.js": "text/javascript",
    "elements.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""The files of the page; there are no others."""

_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_RUNS_KEPT_S = 2.0

_UNTOLD = ("job_id", "path")
"""What a page of pictures does not say, as no address holds a path."""


class Gallery:
    """The application over one output folder. `app` is to be served, `close` to be called after."""

    def __init__(self, output_dir: Path, own: Pass, *, may_make: bool = False) -> None:
        self._output_dir = output_dir
        self._own = own
        self.index = Index(output_dir)
        self._views = Views(self.index)
        self._grids = Grids(output_dir, self._views)
        self._maker = making.Maker(output_dir) if may_make else None
        self._runs: tuple[float, list[dict[str, Any]]] = (-math.inf, [])
        self._runs_lock = threading.Lock()
        self._page = importlib.resources.files("jobs.gallery") / "page"
        self._static = {name: (self._page / name).read_bytes() for name in STATIC}
        self._follower = threading.Thread(target=self.index.follow, daemon=True, name="gallery index")
        self._follower.start()

    def close(self) -> None:
        """End a run that is at work here, and the index."""
        if self._maker is not None:
            self._maker.close()
        self.index.stop()
        self._follower.join()
        self.index.close()

    def app(self) -> ASGIApp:
        """The application with its checks."""
        from starlette.applications import Starlette
        from starlette.routing import Route

        get: dict[str, Callable[[Request], Response]] = {
            "/": self._home,
            "/static/{name}": self._file,
            "/api/view": self._view,
            "/api/page": self._rows,
            "/api/facets": self._facets,
            "/api/grid": self._grid,
            "/api/figures": self._figures,
            "/api/pictures": self._pictures,
            "/api/news": self._news,
            "/api/choices": lambda _request: _json(making.choices()),
            "/api/picture/{image_id}": self._details,
            "/thumb/{image_id}/{size:int}": self._thumb,
            "/picture/{image_id}": self._picture,
            f"{ENTER}{{token}}": self._enter,
        }
        routes = [Route(path, _told(answer), methods=["GET"]) for path, answer in get.items()]
        posts = {"/api/say": self._say, "/api/more": self._more, "/api/make": self._make}
        routes += [Route(path, _posted(answer), methods=["POST"]) for path, answer in posts.items()]
        return Access(Starlette(routes=routes), self._own, _told(self._refused, as_app=True))

    def _home(self, _request: Request) -> Response:
        title = self._output_dir.resolve().name
        return self._html("index.html", title=title, sorts=SORTS, may_make=self._maker is not None)

    def _refused(self, _request: Request) -> Response:
        return self._html("refused.html", status=403)

    def _enter(self, request: Request) -> Response:
        if not self._own.is_token(request.path_params["token"]):
            return self._refused(request)
        # A page that goes on by itself, not a redirect: after a link on another page the browser would leave out the
        # cookie from that.
        answer = self._html("enter.html")
        answer.headers["set-cookie"] = self._own.set_cookie()
        return answer

    def _html(self, name: str, status: int = 200, **values: Any) -> Response:
        from jinja2 import Environment, StrictUndefined
        from starlette.responses import HTMLResponse

        template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
            (self._page / name).read_text(encoding="utf-8")
        )
        return HTMLResponse(template.render(**values), status)

    def _file(self, request: Request) -> Response:
        from starlette.responses import Response

        name = request.path_params["name"]
        if name not in self._static:
            raise _Missing
        return Response(self._static[name], media_type=STATIC[name], headers={"cache-control": "no-cache"})

    def _view(self, request: Request) -> Response:
        items = request.query_params.multi_items()
        keep = [value for name, value in items if name == "keep"]
        view = self._views.view(read_filter((name, value) for name, value in items if name != "keep"))
        place = self._views.place(view, keep[0]) if keep and _ID.fullmatch(keep[0]) else None
        return _json(
            {
                "view": view.id,
                "count": len(view.numbers),
                "ratio": view.ratio,
                "place": place,
                "pictures_version": self.index.pictures_version,
                "is_complete": self.index.is_complete,
            }
        )

    def _rows(self, request: Request) -> Response:
        values = request.query_params
        view = self._views.known(values.get("view", "")[:64])
        if view is None:
            return _json({"error": "this view is forgotten; ask for it again"}, 410)
        start, count = (_number(values.get(name, ""), name) for name in ("start", "count"))
        return _json({"start": start, "rows": self._views.page(view, start, min(count, MAX_PAGE))})

    def _grid(self, request: Request) -> Response:
        version = self.index.pictures_version
        found = self._grids.grid(read_filter(request.query_params.multi_items()))
        return _json({**found, "pictures_version": version})

    def _figures(self, request: Request) -> Response:
        own = {name: request.query_params.get(name, "") for name in ("by", "x", "y")}
        wanted = read_filter(item for item in request.query_params.multi_items() if item[0] not in own)
        return _json(self._grids.figures(wanted, **own))

    def _pictures(self, request: Request) -> Response:
        image_ids = request.query_params.getlist("id")
        if len(image_ids) > marks.MAX_IMAGES or not all(map(_ID.fullmatch, image_ids)):
            raise ConfigError(f"id: expected at most {marks.MAX_IMAGES} ids of pictures")
        found = self._views.pictures(image_ids)
        return _json({"rows": [{name: row[name] for name in row if name not in _UNTOLD} for row in found.values()]})

    def _facets(self, request: Request) -> Response:
        counted = self._views.facets(read_filter(request.query_params.multi_items()))
        return _json({"facets": [{"name": name, "title": FACETS[name].title, **counted[name]} for name in FACETS]})

    def _news(self, _request: Request) -> Response:
        return _json(
            {
                "pictures": self.index.count(),
                "pictures_version": self.index.pictures_version,
                "said_version": self.index.said_version,
                "is_complete": self.index.is_complete,
                "runs": self._running(),
                "making": self._maker.state() if self._maker else None,
            }
        )

    def _running(self) -> list[dict[str, Any]]:
        """The runs at work, looked at every other second, however many pages ask."""
        with self._runs_lock:
            if time.monotonic() - self._runs[0] > _RUNS_KEPT_S:
                names = ("id", "made", "failed", "left")
                found = [asdict(run) for run in running_runs(self._output_dir)]
                self._runs = time.monotonic(), [{name: run[name] for name in names} for run in found]
            return self._runs[1]

    def _details(self, request: Request) -> Response:
        return _json(details.details(self._output_dir, self._known(request)))

    def _thumb(self, request: Request) -> Response:
        from starlette.responses import Response

        size = request.path_params["size"]
        file = self._views.file_of(_image_id(request))
        if file is None or size not in SIZES:
            raise _Missing
        content = thumbnail(self._output_dir, *file, size)
        return Response(content, media_type="image/webp", headers={"cache-control": "private, max-age=86400"})

    def _picture(self, request: Request) -> Response:
        from starlette.responses import Response

        file = self._views.file_of(_image_id(request))
        if file is None:
            raise _Missing
        content, media_type = read_picture(self._output_dir, file[0])
        return Response(content, media_type=media_type, headers={"cache-control": "private, max-age=3600"})

    def _known(self, request: Request) -> dict[str, Any]:
        image_id = _image_id(request)
        found = self._views.pictures([image_id])
        if image_id not in found:
            raise _Missing
        return found[image_id]

    def _say(self, body: bytes) -> Response:
        said = marks.say(marks.read_body(marks.Mark, body), self._views, self._output_dir)
        self.index.look_again()
        return _json({"said": said})

    def _more(self, body: bytes) -> Response:
        more = marks.read_body(making.More, body)
        return _json({"command": making.more_command(more, self._path_of(more.image), self._output_dir)})

    def _make(self, body: bytes) -> Response:
        more = marks.read_body(making.More, body)
        if self._maker is None:
            return _json({"error": "this gallery makes nothing; start it with --make"}, 403)
        self._maker.start(more, self._path_of(more.image))
        return _json({"making": self._maker.state()})

    def _path_of(self, image_id: str) -> str:
        file = self._views.file_of(image_id)
        if file is None:
            raise _Missing
        return file[0]


class _Missing(Exception):
    """There is no such thing here."""


def _told(answer: Callable[[Request], Response], *, as_app: bool = False) -> Any:
    """An endpoint in a thread of its own, whose errors are told as JSON; with `as_app`, an application."""
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request

    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(_answered, lambda: answer(request))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (await endpoint(Request(scope, receive)))(scope, receive, send)

    return app if as_app else endpoint


def _posted(answer: Callable[[bytes], Response]) -> Callable[[Request], Awaitable[Response]]:
    from starlette.concurrency import run_in_threadpool

    async def endpoint(request: Request) -> Response:
        body = await request.body()
        return await run_in_threadpool(_answered, lambda: answer(body))

    return endpoint


def _answered(answer: Callable[[], Response]) -> Response:
    try:
        return answer()
    except _Missing:
        return _json({"error": "there is no such thing here"}, 404)
    except ConfigError as error:
        return _json({"error": str(error)}, 400)
    except ReadError as error:
        return _json({"error": str(error)}, 404)
    except DarkroomError as error:
        return _json({"error": str(error)}, 500)


def _json(values: dict[str, Any], status: int = 200) -> Response:
    from starlette.responses import Response

    text = json.dumps(_finite(values), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Response(text, status, media_type="application/json")


def _finite(value: Any) -> Any:
    """A value whose numbers JSON can say: a manifest from elsewhere may have others."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _image_id(request: Request) -> str:
    image_id = str(request.path_params["image_id"])
    if not _ID.fullmatch(image_id):
        raise _Missing
    return image_id


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ConfigError(f"{name}: expected a number")
    return int(text)
