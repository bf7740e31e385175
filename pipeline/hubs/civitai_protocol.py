"""CivitAI's answers, as far as they are used: models, their versions, files and example pictures, refusals."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AliasChoices, AliasPath, BeforeValidator, Field, StrictStr, model_validator

from pipeline.hubs.answer_fields import Amount, HubAnswer, Line, Number, Sha256, Truth, Words, line, objects, words
from pipeline.registry.card_fields import LONGEST_PROMPT
from pipeline.storage.foreign_names import plain
from pipeline.storage.plain_text import plain_text

_MOST_VERSIONS = 50
_MOST_FILES = 50
_MOST_PICTURES = 20

_PERMISSIONS = {
    "allowNoCredit": "credit to the author",
    "allowDerivatives": "no merges",
    "allowDifferentLicense": "same permissions for merges",
}
"""What a model asks for where the field says false."""

Text = Annotated[str, BeforeValidator(plain_text)]
"""What an author wrote, free of markup."""


def _shown_name(name: Any) -> str:
    """A file's name as it can be shown, with its ending; authors and readers of trigger words give it any form."""
    stem, dot, ending = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    return f"{plain(stem, 150) or 'model'}.{plain(ending, 20).lower()}" if dot else plain(name)


class VersionFile(HubAnswer):
    """A file of a version. `of_version` is the version that it belongs to, if it is listed with another one's."""

    id: Number = 0
    name: Annotated[str, BeforeValidator(_shown_name)] = ""
    type: Line = ""
    size_kib: Amount = Field(default=0.0, alias="sizeKB")
    primary: Truth = False
    of_version: Number = Field(default=0, alias="modelVersionId")
    pickle_scan: Line = Field(default="", alias="pickleScanResult")
    virus_scan: Line = Field(default="", alias="virusScanResult")
    format: Line = Field(default="", validation_alias=AliasPath("metadata", "format"))
    extent: Line = Field(default="", validation_alias=AliasPath("metadata", "size"))
    precision: Line = Field(default="", validation_alias=AliasPath("metadata", "fp"))
    sha256: Sha256 | None = Field(default=None, validation_alias=AliasPath("hashes", "SHA256"))

    @property
    def bytes(self) -> int | None:
        """The size; None if the hub does not give it."""
        return round(self.size_kib * 1024) or None

    @property
    def is_exact(self) -> bool:
        """Whether the size is exact to the byte: KiB with a fraction that gives whole bytes. Others are rounded."""
        return not self.size_kib.is_integer() and (self.size_kib * 1024).is_integer()


class ExamplePicture(HubAnswer):
    """The prompt and settings of an example picture that the author shows."""

    prompt: Annotated[str, line(LONGEST_PROMPT)] = ""
    steps: Amount | None = None
    guidance_scale: Amount | None = Field(default=None, alias="cfgScale")
    clip_skip: Amount | None = Field(default=None, validation_alias=AliasChoices("clipSkip", "Clip skip"))
    sampler: Annotated[str, line(60)] = ""

    @model_validator(mode="before")
    @classmethod
    def _in_meta(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or "meta" not in raw:
            return raw
        return raw["meta"] if isinstance(raw["meta"], dict) else {}


class ModelSummary(HubAnswer):
    """The fields about its model in the answer for a version. `poi`: it shows a real person."""

    name: Line = ""
    type: Line = ""
    mode: Line = ""
    poi: Truth = False


class ModelVersion(HubAnswer):
    """A version. `early_access`: it was in paid early access at the request; only its own answer has `usage`."""

    id: Number = 0
    model_id: Number = Field(default=0, alias="modelId")
    name: Line = ""
    base_model: Line = Field(default="", alias="baseModel")
    usage: Line = Field(default="", alias="usageControl")
    words: Words = Field(default=(), alias="trainedWords")
    early_access: Truth = False
    early_access_until: Annotated[str, line(30)] = ""
    text: Text = Field(default="", alias="description")
    model: ModelSummary = ModelSummary()
    downloads: Number = Field(default=0, validation_alias=AliasPath("stats", "downloadCount"))
    thumbs_up: Number = Field(default=0, validation_alias=AliasPath("stats", "thumbsUpCount"))
    files: Annotated[tuple[VersionFile, ...], objects(_MOST_FILES)] = ()
    pictures: Annotated[tuple[ExamplePicture, ...], objects(_MOST_PICTURES)] = Field(default=(), alias="images")

    @model_validator(mode="before")
    @classmethod
    def _early_access(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or "early_access" in raw:
            return raw
        until = raw.get("earlyAccessEndsAt") or raw.get("earlyAccessDeadline")
        now = raw.get("availability") == "EarlyAccess" or _is_ahead(until)
        return {**raw, "early_access": now, "early_access_until": until}


def _with_ids(versions: tuple[ModelVersion, ...]) -> tuple[ModelVersion, ...]:
    return tuple(version for version in versions if version.id)


class CivitaiModel(ModelSummary):
    """A model with its versions, the newest first; `permissions` are the author's conditions for its use."""

    id: Number = 0
    tags: Words = ()
    permissions: Annotated[str, line(1_000)] = ""
    text: Text = Field(default="", alias="description")
    downloads: Number = Field(default=0, validation_alias=AliasPath("stats", "downloadCount"))
    versions: Annotated[tuple[ModelVersion, ...], objects(_MOST_VERSIONS), AfterValidator(_with_ids)] = Field(
        default=(), alias="modelVersions"
    )

    @model_validator(mode="before")
    @classmethod
    def _permissions(cls, raw: Any) -> Any:
        is_kept = not isinstance(raw, dict) or "permissions" in raw
        return raw if is_kept else {**raw, "permissions": permissions(raw)}


class SearchAnswer(HubAnswer):
    """The answer to a search: models, not parsed yet, and the next page. Without `items` it is no such answer."""

    items: list[Any] | None = None
    cursor: StrictStr | Number = Field(default="", validation_alias=AliasPath("metadata", "nextCursor"))


class CivitaiError(HubAnswer):
    """Why CivitAI refuses a request, and until when, if it says so."""

    error: Line = ""
    message: Line = ""
    deadline: Annotated[str, line(30)] = ""


def permissions(model: Mapping[str, Any]) -> str:
    """The author's permissions in words; empty if the answer does not say."""
    asked = [said for field, said in _PERMISSIONS.items() if model.get(field) is False]
    commercial = model.get("allowCommercialUse")
    if isinstance(commercial, str | list):
        allowed = [use for use in words(commercial) if use != "None"]
        asked.append(f"commercial use: {', '.join(allowed)}" if allowed else "no commercial use")
    return "; ".join(asked)


def title(model_name: str, version_name: str) -> str:
    """The title of a version: the model's name and the version's."""
    return model_name if version_name in model_name else f"{model_name} {version_name}".strip()


def _is_ahead(date: Any) -> bool:
    try:
        then = datetime.fromisoformat(date)
    except (TypeError, ValueError):
        return False
    return (then if then.tzinfo else then.replace(tzinfo=UTC)) > datetime.now(UTC)
