"""Hugging Face's answers, as far as they are used: a repository, its card's fields and its files."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from pipeline.hubs.answer_fields import FirstWord, GitHash, HubAnswer, Line, Number, Sha256, Truth, Words, line, objects
from pipeline.registry.card_fields import LONGEST_PROMPT
from pipeline.registry.records import StoredKind
from pipeline.weights.families import family_of

KIND_TAGS: dict[str, StoredKind] = {
    "lora": "lora", "controlnet": "controlnet", "textual_inversion": "embedding", "ip-adapter": "ip_adapter",
}  # fmt: skip
"""Tags by which authors say what their repository is; a search for a kind filters by them."""

_MOST_FILES = 5_000
_MOST_EXAMPLES = 20
_LONGEST_NAME = 1_000


class RepositoryFile(HubAnswer):
    """A file as a repository lists it; sizes and hashes are None if the hub does not give them.

    `name` may be one that must not become a path, and is empty for what is no name. Small files have git's own hash of
    their content in place of a SHA-256.
    """

    name: Annotated[str, StringConstraints(max_length=_LONGEST_NAME)] = Field(default="", alias="rfilename")
    bytes: Number | None = Field(default=None, alias="size")
    sha256: Sha256 | None = None
    git_blob: GitHash | None = Field(default=None, alias="blobId")

    @model_validator(mode="before")
    @classmethod
    def _in_large_storage(cls, raw: Any) -> Any:
        """Beside what Git LFS holds, the hub also tells of the pointer to it, which is another file."""
        large = raw.get("lfs") if isinstance(raw, dict) else None
        if not isinstance(large, dict):
            return raw
        size = large.get("size") or raw.get("size")
        return {"rfilename": raw.get("rfilename"), "size": size, "sha256": large.get("sha256")}


class WidgetExample(HubAnswer):
    """An example that a repository's page shows, with its prompt."""

    text: Annotated[str, line(LONGEST_PROMPT)] = ""


class CardFields(HubAnswer):
    """The fields in the front matter of a model card."""

    license: FirstWord = ""
    license_name: FirstWord = ""
    base_model: Words = ()
    instance_prompt: FirstWord = ""
    widget: Annotated[tuple[WidgetExample, ...], objects(_MOST_EXAMPLES)] = ()


class RepositoryInfo(HubAnswer):
    """A repository at a commit, `sha`, which is empty if the hub does not give one."""

    id: Line = ""
    sha: GitHash = ""
    gated: Annotated[bool, BeforeValidator(bool)] = False
    disabled: Truth = False
    downloads: Number = 0
    tags: Words = ()
    card: CardFields = Field(default_factory=CardFields, alias="cardData")
    files: Annotated[tuple[RepositoryFile, ...], objects(_MOST_FILES)] = Field(default=(), alias="siblings")

    @property
    def base_model(self) -> str | None:
        """The base model, as the card or the tags name it."""
        tagged = [tag.rpartition(":")[2] for tag in self.tags if tag.startswith("base_model:")]
        return next(iter((*self.card.base_model, *tagged)), None)

    @property
    def licence(self) -> str | None:
        """The licence's short name, as the card or the tags give it."""
        own = self.card.license_name if self.card.license == "other" else ""
        tagged = next((tag.partition(":")[2] for tag in self.tags if tag.startswith("license:")), "")
        return own or self.card.license or tagged or None

    @property
    def family(self) -> str | None:
        """The family of the pipeline in the tags."""
        pipelines = (family_of(tag.partition(":")[2]) for tag in self.tags if tag.startswith("diffusers:"))
        return next((known.name for known in pipelines if known), None)

    @property
    def kind(self) -> StoredKind | None:
        """The kind of model in the repository, by its tags and file names; None if they do not tell."""
        names = {file.name for file in self.files}
        if "model_index.json" in names:
            return "checkpoint"
        tagged = next((of for tag, of in KIND_TAGS.items() if tag in self.tags), None)
        return tagged or ("lora" if "pytorch_lora_weights.safetensors" in names else None)

    @property
    def trigger_words(self) -> tuple[str, ...]:
        """The trigger words of a LoRA."""
        return (self.card.instance_prompt,) if self.card.instance_prompt else ()

    @property
    def free_tags(self) -> tuple[str, ...]:
        """The author's own tags, without those that are fields of the hub."""
        return tuple(tag for tag in self.tags if ":" not in tag)
