"""Hugging Face's answers, as far as they are used: a repository, its card's fields and its files."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints

from pipeline.hubs.answer_fields import FirstWord, GitHash, HubAnswer, Line, Number, Sha256, Truth, Words, objects
from pipeline.registry.records import StoredKind
from pipeline.weights.families import family_of

KIND_TAGS: dict[str, StoredKind] = {
    "lora": "lora", "controlnet": "controlnet", "textual_inversion": "embedding", "ip-adapter": "ip_adapter",
}  # fmt: skip
"""Tags by which authors say what their repository is; a search for a kind filters by them."""

_MOST_FILES = 5_000
_LONGEST_NAME = 1_000


class LargeFile(HubAnswer):
    """What is told of a file that lies in Git LFS."""

    sha256: Sha256 | None = None
    size: Number = 0


class ListedFile(HubAnswer):
    """A file of a repository. Small ones have git's own hash of their content in place of a SHA-256.

    `name` may still be one that must not become a path; empty for what is no name.
    """

    name: Annotated[str, StringConstraints(max_length=_LONGEST_NAME)] = Field(default="", alias="rfilename")
    size: Number = 0
    git_blob: GitHash | None = Field(default=None, alias="blobId")
    lfs: LargeFile | None = None


class CardFields(HubAnswer):
    """What a model card says in its front matter."""

    license: FirstWord = ""
    license_name: FirstWord = ""
    base_model: Words = ()
    instance_prompt: FirstWord = ""


class RepositoryInfo(HubAnswer):
    """A repository at a commit, `sha`, which is empty if the hub does not say one."""

    id: Line = ""
    sha: GitHash = ""
    gated: Annotated[bool, BeforeValidator(bool)] = False
    disabled: Truth = False
    downloads: Number = 0
    tags: Words = ()
    card: CardFields = Field(default_factory=CardFields, alias="cardData")
    files: Annotated[tuple[ListedFile, ...], objects(_MOST_FILES)] = Field(default=(), alias="siblings")

    @property
    def base_model(self) -> str | None:
        """What the model was made from, as the card or the tags say."""
        tagged = [tag.rpartition(":")[2] for tag in self.tags if tag.startswith("base_model:")]
        return next(iter((*self.card.base_model, *tagged)), None)

    @property
    def licence(self) -> str | None:
        """The licence's short name, as the card or the tags say it."""
        own = self.card.license_name if self.card.license == "other" else ""
        tagged = next((tag.partition(":")[2] for tag in self.tags if tag.startswith("license:")), "")
        return own or self.card.license or tagged or None

    @property
    def family(self) -> str | None:
        """The family of the pipeline that the tags name."""
        pipelines = (family_of(tag.partition(":")[2]) for tag in self.tags if tag.startswith("diffusers:"))
        return next((known.name for known in pipelines if known), None)

    @property
    def kind(self) -> StoredKind | None:
        """What the repository holds, by its tags and its files' names; None where they do not tell."""
        names = {file.name for file in self.files}
        if "model_index.json" in names:
            return "checkpoint"
        tagged = next((of for tag, of in KIND_TAGS.items() if tag in self.tags), None)
        return tagged or ("lora" if "pytorch_lora_weights.safetensors" in names else None)

    @property
    def trigger_words(self) -> tuple[str, ...]:
        """The words that a LoRA wants in the prompt."""
        return (self.card.instance_prompt,) if self.card.instance_prompt else ()

    @property
    def free_tags(self) -> tuple[str, ...]:
        """The tags that are words of the author's, not fields of the hub's."""
        return tuple(tag for tag in self.tags if ":" not in tag)
