"""The `hub:` section of a batch configuration; `jobs.config.hub_access` turns it into the downloader's settings.

Apart from the other sections, so that `darkroom models` can check it without importing what those are about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, BeforeValidator
from pydantic_core import PydanticCustomError

from pipeline.faults import UNSHOWN
from pipeline.hubs.hub_settings import PROXY_SCHEMES, fault_of_url
from pipeline.ranges import STRICT


def _url(schemes: tuple[str, ...], *, may_hold_user: bool = False) -> Callable[[object], object]:
    def check(value: object) -> object:
        if value is None:
            return value
        fault = fault_of_url(value, schemes, may_hold_user) if isinstance(value, str) else "must be text, a URL"
        if fault:
            raise PydanticCustomError(UNSHOWN, "{fault}", {"fault": fault}) if "@" in str(value) else ValueError(fault)
        return value

    return check


_HubUrl = Annotated[str | None, BeforeValidator(_url(("https", "http")))]


class Hub(BaseModel):
    """Whether a run may download, and how hubs are reached: `pipeline.hubs.hub_settings.HubSettings` says it.

    Changes no picture, so it is no part of a job's identity, and nothing of it is written into images and reports.
    """

    model_config = STRICT

    auto_download: bool = False
    allow_token: bool = False
    proxy: Annotated[str | None, BeforeValidator(_url(PROXY_SCHEMES, may_hold_user=True))] = None
    huggingface_url: _HubUrl = None
    civitai_url: _HubUrl = None
