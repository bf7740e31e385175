"""The versions that made images, as constraints for pip."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ReadError

if TYPE_CHECKING:
    from pipeline.metadata.foreign import ImageDescription
    from pipeline.metadata.record import Record

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_VERSION = re.compile(r"[0-9][0-9A-Za-z.!-]{0,60}(?:\+[0-9A-Za-z.]{1,60})?")
_NO_PACKAGES = ("python", "cuda")
"""What records have among the versions and no package index has; they are comments."""


def constraints(described: Sequence[tuple[Path, ImageDescription]]) -> Iterator[str]:
    """The lines of a constraints file with the versions that made these images.

    Raises `ReadError` for images without a record of ours, for names and versions that are none (a record may come from
    anybody), and where two images were made with different versions, which no one file can say.
    """
    versions: dict[str, str] = {}
    made_by: dict[str, Path] = {}
    for image, description in described:
        record = description.record
        if record is None:
            raise ReadError(f"{image}: was not made by Darkroom, so the versions are not known")
        for name, version in _versions(record, image):
            if versions.setdefault(name, version) != version:
                first = f"{made_by[name]} with {versions[name]}"
                raise ReadError(
                    f"{image}: was made with {name} {version}, {first}; print the constraints of each alone"
                )
            made_by.setdefault(name, image)
    yield "# What made these images; in a new environment: pip install darkroom -c FILE"
    for name, version in sorted(versions.items()):
        local = version.partition("+")[2]
        if name in _NO_PACKAGES:
            yield f"# {name} {version}"
        elif local:
            # Such builds are in an index of their own, which pip must be told; any build of that version fits.
            yield f"{name}=={version.partition('+')[0]}  # the build {local}"
        else:
            yield f"{name}=={version}"


def _versions(record: Record, image: Path) -> Iterator[tuple[str, str]]:
    for name, version in {"darkroom": record.generator.version, **record.runtime.versions}.items():
        if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
            raise ReadError(f"{image}: its record has {name[:60]!r} {version[:60]!r}, which is no package and version")
        yield name, version
