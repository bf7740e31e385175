"""What requests tell the hubs and Ollama, as `darkroom models privacy` prints it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.hubs.hub_settings import HubSettings
from pipeline.hubs.privacy import NEVER, Told, proxy_shown, told
from pipeline.hubs.remote_models import LABELS
from pipeline.selection.ollama.privacy import HEADERS, REQUESTS, WHERE
from pipeline.selection.ollama.settings import DEFAULT_HOST


def privacy_lines(settings: HubSettings) -> Iterator[str]:
    """Every kind of request, for people."""
    proxy = proxy_shown(settings)
    for one in told(settings):
        yield f"{LABELS[one.hub]}: {one.form.what}"
        yield f"  when:     {one.form.when}"
        yield f"  to:       {one.address}"
        yield f"  request:  GET {one.path}"
        for name, value in one.headers:
            yield f"            {name}: {value}"
        for name, value in one.when_resumed:
            yield f"            {name}: {value}   (when a download resumes after 1,000 bytes)"
        yield f"  tells:    {one.form.tells}"
        yield f"  token:    {one.token}"
        if one.onward:
            yield f"  then:     the same to the server it redirects to, without a token: {', '.join(one.onward)}"
        yield ""
    for request in REQUESTS:
        yield f"Ollama: {request.what}"
        yield "  when:     runs and explain, where an LLM is to read prompts (selection.analysis)"
        yield f"  to:       {DEFAULT_HOST}: {WHERE}"
        yield f"  request:  {request.method} {request.path}"
        for name, value in HEADERS:
            yield f"            {name}: {value}"
        yield f"  tells:    {request.tells}"
        yield "  token:    none; OLLAMA_API_KEY is not sent, and no redirect or proxy of the environment is followed"
        yield ""
    if proxy:
        yield f"proxy: everything goes through {proxy}, which also looks up the hosts' names; hubs see its address"
    else:
        yield "proxy: none; hubs see the address of this network, and its name server is asked for the hosts above"
    yield "For models on this machine no request is sent; a run sends requests only with hub.auto_download=true"
    yield from (f"never sent: {line}" for line in NEVER)


def privacy_row(settings: HubSettings) -> Mapping[str, Any]:
    """The same for JSON."""
    return {
        "auto_download": settings.auto_download,
        "proxy": proxy_shown(settings),
        "requests": [_row(one) for one in told(settings)],
        "ollama": [
            {
                "what": one.what,
                "to": DEFAULT_HOST,
                "method": one.method,
                "path": one.path,
                "headers": dict(HEADERS),
                "tells": one.tells,
            }
            for one in REQUESTS
        ],
        "never_sent": list(NEVER),
    }


def _row(one: Told) -> dict[str, Any]:
    return {
        "hub": one.hub,
        "what": one.form.what,
        "when": one.form.when,
        "to": one.address,
        "method": "GET",
        "path": one.path,
        "headers": dict(one.headers),
        "headers_when_resumed": dict(one.when_resumed),
        "tells": one.form.tells,
        "token_sent": one.has_token,
        "token": one.token,
        "leads_to": list(one.onward),
    }
