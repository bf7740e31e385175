"""Hugging Face's protocol for `HubServer`: model info, search, and files behind a redirect, for anonymous callers.

Answers have the form of the public hub's as huggingface_hub 2.4 reads them: a missing and a private repository are both
401 with `X-Error-Code: RepoNotFound`, a gated one can be looked at and not fetched, large files have their SHA-256
under `lfs` and lie behind a redirect to storage, small ones have git's own hash.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from hub_server import HubServer, Reply, Request, json_reply, ranged, redirect

LARGE = (".safetensors", ".gguf", ".bin", ".ckpt", ".pt", ".spm")
FIRST_COMMIT = "0" * 40


@dataclass
class Repository:
    """A repository. `files` are those of the branch `main`; `replace` makes a new commit of it, the old one stays.

    `extra` are entries of the file list as a hostile or broken hub would add them.
    """

    name: str
    files: dict[str, bytes]
    tags: tuple[str, ...] = ("diffusers", "text-to-image")
    card: dict[str, Any] = field(default_factory=dict)
    pipeline_tag: str | None = "text-to-image"
    gated: str | bool = False
    private: bool = False
    disabled: bool = False
    downloads: int = 0
    extra: tuple[dict[str, Any], ...] = ()
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.replace(self.files)

    def replace(self, files: dict[str, bytes]) -> str:
        """Move `main` to a new commit with these files; returns the commit."""
        self.files = files
        digest = hashlib.sha1(self.name.encode())
        for name, content in sorted(files.items()):
            digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
        self.commit = digest.hexdigest()
        self.commits[self.commit] = files
        return self.commit

    def at(self, revision: str) -> str | None:
        """The commit that a revision means."""
        if revision == "main":
            return self.commit
        return next((commit for commit in self.commits if commit == revision), None)


def add_huggingface(server: HubServer, repositories: list[Repository]) -> None:
    """Serve these; the list may change afterwards."""

    def called(request: Request) -> Repository | None:
        name = request.match["name"]
        return next((one for one in repositories if one.name == name and not one.private), None)

    def info(request: Request) -> Reply:
        repository = called(request)
        if repository is None:
            return missing_repository()
        commit = repository.at(unquote(request.match.get("revision") or "main"))
        if commit is None:
            return error(404, "RevisionNotFound", f"Invalid rev id: {request.match['revision']}")
        return json_reply(described(repository, commit, blobs="blobs" in request.query))

    def listed(request: Request) -> Reply:
        query = request.query
        words = query.get("search", [""])[0].lower().replace("-", " ").split()
        found = [one for one in repositories if all(word in one.name.lower() for word in words) and not one.private]
        if wanted := query.get("pipeline_tag"):
            found = [one for one in found if one.pipeline_tag == wanted[0]]
        for tag in query.get("filter", ()):
            found = [one for one in found if tag in one.tags]
        found.sort(key=lambda one: -one.downloads)
        first, limit = (int(query.get(name, [default])[0]) for name, default in (("cursor", "0"), ("limit", "1000")))
        page = json_reply([described(one, one.commit, blobs=False) for one in found[first : first + limit]])
        following = f'<https://huggingface.co/api/models?limit={limit}&cursor={first + limit}>; rel="next"'
        return page.with_headers(Link=following) if found[first + limit :] else page

    def resolved(request: Request) -> Reply:
        repository = called(request)
        if repository is None:
            return missing_repository()
        if repository.disabled:
            return error(403, "", "Access to this resource is disabled.")
        if repository.gated:
            return error(401, "GatedRepo", f"Access to model {repository.name} is restricted. Please log in.")
        commit = repository.at(unquote(request.match["revision"]))
        if commit is None:
            return error(404, "RevisionNotFound", "Invalid rev id")
        name = unquote(request.match["file"])
        content = repository.commits[commit].get(name)
        if content is None:
            return error(404, "EntryNotFound", "Entry not found").with_headers(X_Repo_Commit=commit)
        if not name.endswith(LARGE):
            return ranged(request, content, f'"{git_blob(content)}"').with_headers(X_Repo_Commit=commit)
        sha256 = hashlib.sha256(content).hexdigest()
        return redirect(f"{server.url}/cdn/{sha256}?X-Amz-Signature=signed", 302).with_headers(
            X_Repo_Commit=commit, X_Linked_Etag=f'"{sha256}"', X_Linked_Size=str(len(content))
        )

    def stored(request: Request) -> Reply:
        for repository in repositories:
            for files in repository.commits.values():
                for content in files.values():
                    if hashlib.sha256(content).hexdigest() == request.match["sha256"]:
                        return ranged(request, content)
        return json_reply({"error": "no such key"}, 404)

    server.route("GET", r"/(?P<name>[\w.-]+(?:/[\w.-]+)?)/resolve/(?P<revision>[^/]+)/(?P<file>.+)", resolved)
    server.route("GET", r"/cdn/(?P<sha256>[0-9a-f]{64})", stored)
    server.route("GET", r"/api/models", listed)
    server.route("GET", r"/api/models/(?P<name>[\w.-]+(?:/[\w.-]+)?)(/revision/(?P<revision>[^/]+))?", info)


def described(repository: Repository, commit: str, blobs: bool) -> dict[str, Any]:
    """The answer for one repository; sizes and hashes only where they are asked for."""
    siblings: list[dict[str, Any]] = []
    for name, content in repository.commits[commit].items():
        entry: dict[str, Any] = {"rfilename": name}
        if blobs:
            entry |= {"size": len(content), "blobId": git_blob(content)}
            if name.endswith(LARGE):
                entry["lfs"] = {
                    "sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134,
                }  # fmt: skip
        siblings.append(entry)
    return {
        "_id": "66a0", "id": repository.name, "modelId": repository.name,
        "author": repository.name.partition("/")[0], "sha": commit, "lastModified": "2026-01-01T00:00:00.000Z",
        "private": False, "gated": repository.gated, "disabled": repository.disabled,
        "downloads": repository.downloads, "likes": 3, "tags": list(repository.tags),
        "pipeline_tag": repository.pipeline_tag, "library_name": "diffusers", "cardData": repository.card,
        "siblings": [*siblings, *repository.extra],
    }  # fmt: skip


def git_blob(content: bytes) -> str:
    """The hash that git gives a file."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def missing_repository() -> Reply:
    return error(401, "RepoNotFound", "Repository not found", "Invalid username or password.")


def error(status: int, code: str, message: str, body: str | None = None) -> Reply:
    headers = {"X_Error_Code": code} if code else {}
    return json_reply({"error": body or message}, status).with_headers(X_Error_Message=message, **headers)
