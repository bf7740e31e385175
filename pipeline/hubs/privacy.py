"""What requests tell the hubs: each kind of request, as it would be sent with the settings of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from pipeline.hubs.addresses import origin_of
from pipeline.hubs.hub_settings import HOSTS, HubSettings
from pipeline.hubs.limits import BUCKETS, RequestKind
from pipeline.hubs.remote_models import LABELS, TOKENS, Hub
from pipeline.hubs.transport import ANSWERS, ANYTHING, headers_for

NEVER = (
    "cookies, referrers, ids of a session or a machine, telemetry; every connection is a new one",
    "prompts, pictures, settings of runs, names of files and folders, your other models",
    "the names of the user and of this machine, the system, versions of anything but Darkroom",
    "tokens in files, passwords in .netrc, proxies in the environment: they are not even read",
)
"""What no request to a hub carries."""

_HERE = "which model somebody at this address wants"


@dataclass(frozen=True, slots=True)
class RequestForm:
    """A kind of request. In `path` a name in <> stands for a value, and [] for an optional part.

    <repository> is `organisation/name`, or the name alone of those that have no owner.

    `leads_on`: the answer sends on to where the hub's files lie, and the same is asked for there.
    """

    what: str
    when: str
    kind: RequestKind
    path: str
    tells: str
    accept: str = ANSWERS
    leads_on: bool = False


FORMS = (
    RequestForm(
        "search", "models search, models download NAME", "huggingface.api",
        "/api/models?search=<words>&sort=downloads&limit=<number>[&pipeline_tag=<tag>][&filter=<tag>]&expand=<field>"
        "[&cursor=<page>]",
        "the words that are searched for, and the kind of model",
    ),
    RequestForm(
        "the contents of a repository", "models show, models download, runs with auto_download", "huggingface.api",
        "/api/models/<repository>/revision/<revision>?blobs=true", _HERE,
    ),
    RequestForm(
        "its card and small files", "models show, models download, runs with auto_download", "huggingface.file",
        "/<repository>/resolve/<commit>/<file>", _HERE, leads_on=True,
    ),
    RequestForm(
        "its weights", "models download, runs with auto_download", "huggingface.file",
        "/<repository>/resolve/<commit>/<file>", _HERE, ANYTHING, leads_on=True,
    ),
    RequestForm(
        "search", "models search, models download NAME", "civitai.api",
        "/api/v1/models?query=<words>&limit=<number>[&types=<kind>][&cursor=<page>]",
        "the words that are searched for, and the kind of model",
    ),
    RequestForm(
        "a version", "models show, models download, runs with auto_download", "civitai.api",
        "/api/v1/model-versions/<id>", _HERE,
    ),
    RequestForm(
        "a model", "models show, models download, runs with auto_download", "civitai.api",
        "/api/v1/models/<id>", _HERE,
    ),
    RequestForm(
        "a hash", "models identify --ask-civitai, models download sha256:..., runs with auto_download", "civitai.api",
        "/api/v1/model-versions/by-hash/<hash>",
        "the hash: that somebody at this address has the file, or wants it",
    ),
    RequestForm(
        "weights", "models download, runs with auto_download", "civitai.file",
        "/api/download/models/<version>?fileId=<file>", _HERE, ANYTHING, leads_on=True,
    ),
)  # fmt: skip
"""Every kind of request that there is."""


@dataclass(frozen=True, slots=True)
class Told:
    """A kind of request with the settings of this machine.

    `headers` are all that are sent, `when_resumed` what is added where a download goes on after so many bytes (1,000 in
    this example). A token is shown by the name of its variable. `token` says whether it is sent, and why. `onward` are
    the hosts to which the hub may lead, which get the same headers but no token.
    """

    form: RequestForm
    hub: Hub
    address: str
    headers: tuple[tuple[str, str], ...]
    when_resumed: tuple[tuple[str, str], ...]
    has_token: bool
    token: str
    onward: tuple[str, ...]

    @property
    def path(self) -> str:
        """The requested path: a mirror's address may have a path of its own in front."""
        return urlsplit(self.address).path + self.form.path


def told(settings: HubSettings) -> list[Told]:
    """Every kind of request, Hugging Face's first. Nothing is sent."""
    return [_told(settings, form) for form in FORMS]


def proxy_shown(settings: HubSettings) -> str | None:
    """The proxy's URL without user and password."""
    if settings.proxy is None:
        return None
    parts = urlsplit(settings.proxy)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _told(settings: HubSettings, form: RequestForm) -> Told:
    hub = BUCKETS[form.kind].hub
    address = settings.url_of(hub)
    origin = origin_of(address)
    has_token = settings.token_of(hub) is not None
    token = f"<{TOKENS[hub]}>" if has_token else None
    headers = headers_for(origin, form.accept, None, token)
    resumed = headers_for(origin, form.accept, 1_000, token) if form.accept == ANYTHING else headers
    return Told(
        form,
        hub,
        address,
        tuple(headers),
        tuple(header for header in resumed if header not in headers),
        has_token,
        _why(settings, hub),
        HOSTS[hub] if form.leads_on else (),
    )


def _why(settings: HubSettings, hub: Hub) -> str:
    name = TOKENS[hub]
    if not settings.allow_token:
        return f"none: hub.allow_token is false, so {name} is not read"
    if settings.token_of(hub) is None:
        return f"none: hub.allow_token is true, but {name} is not set"
    return f"the one in {name}, since hub.allow_token is true: {LABELS[hub]} knows who you are"
