"""CivitAI's protocol for `HubServer`: search, models, versions, look-up by hash, downloads behind a redirect.

Forms and refusals are those of its own handlers (`src/pages/api` of civitai/civitai): see reliability.md 3.1 and 3.2 of
the design's references. Of its peculiarities, those that matter to anonymous callers are kept: `page` with `query` is a
400, deep pages a 429 that must not be tried again, `favorites` and `hidden` a 401 whatever their value, browsers are
sent to a login page, storage refuses whoever sends it an Authorization.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from hub_server import HubServer, Reply, Request, html_reply, json_reply, ranged, redirect

BROWSERS = ("mozilla", "chrome", "safari", "firefox", "opera", "edge")
DISABLED = "The creator of this asset has disabled downloads on this file"
_OF_VERSIONS_ONLY = ("usageControl", "model", "modelId")
LOGIN = "The creator of this asset requires you to be logged in to download it"


@dataclass
class File:
    """One file of a version. `sha256` is what the site says, by default the truth."""

    id: int
    content: bytes
    name: str = "model.safetensors"
    type: str = "Model"
    format: str | None = "SafeTensor"
    size: str | None = "pruned"
    fp: str | None = "fp16"
    primary: bool = True
    pickle_scan: str = "Success"
    virus_scan: str = "Success"
    sha256: str | None = ""
    of_version: int | None = None

    def described(self, version_id: int) -> dict[str, Any]:
        digest = hashlib.sha256(self.content).hexdigest() if self.sha256 == "" else self.sha256
        about = {"format": self.format, "size": self.size, "fp": self.fp}
        hashes = {"AutoV2": digest[:10].upper(), "SHA256": digest.upper()} if digest else {}
        described: dict[str, Any] = {
            "id": self.id, "sizeKB": len(self.content) / 1024, "name": self.name, "type": self.type,
            "metadata": {key: value for key, value in about.items() if value is not None},
            "pickleScanResult": self.pickle_scan, "pickleScanMessage": None, "virusScanResult": self.virus_scan,
            "scannedAt": "2025-12-18T09:20:00.000Z", "hashes": hashes, "primary": self.primary,
            # As some look-ups answer: without a scheme, and for a host that is none.
            "downloadUrl": f"//localhost:3000/api/download/models/{version_id}",
        }  # fmt: skip
        if self.of_version is not None:
            described["modelVersionId"] = self.of_version
        return described


@dataclass
class Version:
    """One version of a model; what keeps callers from it is in `usage`, `login` and `early_access_until`."""

    id: int
    files: list[File]
    name: str = "v1.0"
    base_model: str = "SD 1.5"
    words: tuple[str, ...] = ()
    usage: str = "Download"
    login: bool = False
    early_access_until: str | None = None
    description: str | None = None
    images: tuple[dict[str, Any], ...] = ()


@dataclass
class Model:
    """A model with its versions, the newest first."""

    id: int
    name: str
    versions: list[Version]
    type: str = "Checkpoint"
    description: str | None = None
    tags: tuple[str, ...] = ()
    mode: str | None = None
    poi: bool = False
    downloads: int | None = 0
    permissions: dict[str, Any] = field(default_factory=dict)


def add_civitai(server: HubServer, models: list[Model]) -> None:
    """Serve these; the list may change afterwards."""

    def versions() -> list[tuple[Model, Version]]:
        return [(model, version) for model in models for version in model.versions]

    def searched(request: Request) -> Reply:
        query = request.query
        if {"favorites", "hidden"} & {*query}:
            return json_reply({"error": "Unauthorized"}, 401)
        limit = int(query.get("limit", ["100"])[0])
        if "page" in query and "query" in query:
            return json_reply({"error": "Cannot use page param with query search. Use cursor-based pagination."}, 400)
        if int(query.get("page", ["1"])[0]) * limit > 1000:
            return too_many_pages()
        words = query.get("query", [""])[0].lower().split()  # "ink-wash" does not find "Ink Wash"
        types = query.get("types", [])
        found = [
            one
            for one in models
            if all(word in one.name.lower() for word in words) and (not types or one.type in types)
        ]
        found = sorted((one for one in found if not one.poi), key=lambda one: -one.id)
        first = int(query.get("cursor", ["0"])[0])
        following = {"nextCursor": first + limit} if found[first + limit :] else {}
        page = [described_model(one) for one in found[first : first + limit]]
        return json_reply({"items": page, "metadata": following})

    def model(request: Request) -> Reply:
        found = next((one for one in models if str(one.id) == request.match["id"]), None)
        if found is None:
            return json_reply({"error": f"No model with id {request.match['id']}"}, 404)
        return json_reply(described_model(found))

    def version(request: Request) -> Reply:
        for of, one in versions():
            if str(one.id) == request.match["id"]:
                return json_reply(described_version(of, one))
        return json_reply({"error": "Model not found"}, 404)

    def by_hash(request: Request) -> Reply:
        digest = request.match["hash"].upper()
        for of, one in versions():
            for file in one.files:
                if digest in file.described(one.id)["hashes"].values():
                    return json_reply(described_version(of, one))
        return json_reply({"error": "Model not found"}, 404)

    def download(request: Request) -> Reply:
        found = next(((of, one) for of, one in versions() if str(one.id) == request.match["id"]), None)
        if found is None or found[0].poi:
            return json_reply({"error": "File not found"}, 404)
        of, one = found
        browser = any(word in (request.header("User-Agent") or "").lower() for word in BROWSERS)
        if of.mode == "Archived":
            return json_reply({"error": "Model archived, not available for download"}, 410)
        if one.early_access_until:
            said = "This asset is in Early Access. You can use Buzz access it now!"
            body = {"error": "Early Access", "deadline": one.early_access_until, "message": said}
            return redirect(f"/model-versions/{one.id}") if browser else json_reply(body, 403)
        if one.login and request.header("Authorization") is None:
            body = {"error": "Unauthorized", "message": LOGIN}
            return redirect("/login?reason=download-auth") if browser else json_reply(body, 401)
        if one.usage != "Download":
            return json_reply({"error": "Unauthorized", "message": DISABLED}, 401)
        wanted = request.query.get("fileId")
        files = [file for file in one.files if wanted is None or str(file.id) == wanted[0]]
        if not files:
            return json_reply({"error": "File not found"}, 404)
        return redirect(f"{server.url}/storage/{one.id}/{files[0].id}?X-Amz-Signature=signed", 307)

    def stored(request: Request) -> Reply:
        if request.header("Authorization") is not None:
            return Reply(400, b"<Error><Code>InvalidRequest</Code></Error>", (("Content-Type", "application/xml"),))
        for _, one in versions():
            for file in one.files:
                if (str(one.id), str(file.id)) == (request.match["version"], request.match["file"]):
                    return ranged(request, file.content)
        return Reply(404, b"<Error><Code>NoSuchKey</Code></Error>", (("Content-Type", "application/xml"),))

    server.route("GET", r"/api/v1/models", searched)
    server.route("GET", r"/api/v1/models/(?P<id>\d+)", model)
    server.route("GET", r"/api/v1/model-versions/(?P<id>\d+)", version)
    server.route("GET", r"/api/v1/model-versions/by-hash/(?P<hash>[0-9A-Za-z]+)", by_hash)
    server.route("GET", r"/api/download/models/(?P<id>\d+)", download)
    server.route("GET", r"/storage/(?P<version>\d+)/(?P<file>\d+)", stored)
    server.route("GET", r"/login", lambda request: html_reply())


def described_version(model: Model, version: Version) -> dict[str, Any]:
    """The answer of the endpoint for versions; only it says `usageControl`."""
    archived = model.mode == "Archived"
    return {
        "id": version.id, "modelId": model.id, "name": version.name, "baseModel": version.base_model,
        "baseModelType": "Standard", "status": "Published", "publishedAt": "2025-12-18T09:00:00.000Z",
        "availability": "EarlyAccess" if version.early_access_until else "Public",
        "usageControl": version.usage, "trainedWords": list(version.words),
        "earlyAccessEndsAt": version.early_access_until, "description": version.description,
        "stats": {"downloadCount": model.downloads, "thumbsUpCount": None},
        "model": {"name": model.name, "type": model.type, "nsfw": False, "poi": model.poi, "mode": model.mode},
        "files": [] if archived else [file.described(version.id) for file in version.files],
        "images": list(version.images),
        "downloadUrl": f"//localhost:3000/api/download/models/{version.id}",
    }  # fmt: skip


def described_model(model: Model) -> dict[str, Any]:
    """The answer for a model, in a search and by its number; its versions lack what only their own endpoint says."""
    versions = [
        {key: value for key, value in described_version(model, version).items() if key not in _OF_VERSIONS_ONLY}
        for version in model.versions
    ]
    return {
        "id": model.id, "name": model.name, "description": model.description, "type": model.type, "poi": model.poi,
        "nsfw": False, "tags": list(model.tags), "mode": model.mode, "creator": {"username": "somebody"},
        "stats": {"downloadCount": model.downloads}, "modelVersions": versions, **model.permissions,
    }  # fmt: skip


def too_many_pages() -> Reply:
    return json_reply({"error": "You've requested too many pages, please use cursors instead"}, 429)
