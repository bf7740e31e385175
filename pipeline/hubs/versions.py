"""Resolves an id or a hash on CivitAI to a pinned model with the one file to fetch."""

from __future__ import annotations

from pipeline.hubs import civitai
from pipeline.hubs.civitai_protocol import CivitaiModel, ModelVersion, title
from pipeline.hubs.query import FRESH_S
from pipeline.hubs.remote_models import RemoteFile, RemoteModel
from pipeline.hubs.results import Ok, Outcome, Problem
from pipeline.hubs.transport import Transport
from pipeline.hubs.version_files import KINDS, chosen_file
from pipeline.weights.families import family_of_base


def version(transport: Transport, number: int, fresh_s: float = FRESH_S) -> Outcome[RemoteModel]:
    """The version with this id; if there is none, the newest version that can be downloaded of the model with this id.

    The hub is asked if what it said is older than `fresh_s` seconds.
    """
    said = civitai.version(transport, number, fresh_s)
    if said.kind == "not_found":
        of = civitai.model(transport, number, fresh_s)
        if not isinstance(of, Ok):
            return of
        what = f"civitai:{number}"
        problems = [civitai.obstacle(transport, one, of.value, what) for one in of.value.versions]
        if not problems:
            return Problem("refused", what, "is a model without versions")
        if None not in problems:
            return problems[0] or Problem("not_found", what)
        said = civitai.version(transport, of.value.versions[problems.index(None)].id, fresh_s)
    return _described(transport, said, f"civitai:{number}", fresh_s=fresh_s)


def version_by_hash(transport: Transport, sha256: str) -> Outcome[RemoteModel]:
    """The version with a file of exactly this content."""
    return _described(transport, civitai.version_by_hash(transport, sha256), f"sha256:{sha256}", sha256)


def _described(
    transport: Transport, said: Outcome[ModelVersion], what: str, sha256: str | None = None, fresh_s: float = FRESH_S
) -> Outcome[RemoteModel]:
    if not isinstance(said, Ok):
        return said
    version = said.value
    if obstacle := civitai.obstacle(transport, version, version.model, what):
        return obstacle
    file = chosen_file(version, sha256)
    if isinstance(file, str):
        return Problem("refused", what, file)
    base = version.base_model
    family = family_of_base(base)
    # What only the model's own answer tells is worth a question, but nothing depends on it.
    of = civitai.model(transport, version.model_id, fresh_s) if version.model_id else None
    more = of.value if isinstance(of, Ok) else CivitaiModel()
    notes = () if family else (f"whether a model for {base or 'an unnamed base'} can be run shows when it is here",)
    model = RemoteModel(
        hub="civitai",
        reference=f"civitai:{version.id}",
        name=title(version.model.name, version.name),
        files=(
            RemoteFile(
                file.name,
                civitai.file_url(transport, version.id, file.id),
                file.bytes,
                file.sha256,
                exact=file.is_exact,
            ),
        ),
        folder=False,
        kind=KINDS[version.model.type],
        family=family,
        base_model=base or None,
        licence=more.permissions or None,
        trigger_words=version.words,
        tags=more.tags,
        version_id=version.id,
        model_id=version.model_id or None,
        notes=notes,
    )
    return Ok(model, said.at, said.stale)
