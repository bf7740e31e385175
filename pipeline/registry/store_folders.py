"""Where Darkroom keeps what it knows and what it has fetched, and whether a disk is this machine's own."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "lustre", "gpfs", "beegfs", "beegfs_nodev", "pvfs2",
     "orangefs", "glusterfs", "ceph", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.rclone", "fuse.s3fs",
     "fuse.gcsfuse", "fuse.davfs", "davfs"}
)  # fmt: skip
"""File systems, by Linux's names, whose locks and shared memory do not hold between machines, as SQLite needs them."""

_MOUNTS = Path("/proc/self/mounts")


def data_folder() -> Path:
    """The folder `DARKROOM_HOME` names (`~` is understood), else the user's data folder; it need not exist yet."""
    chosen = os.environ.get("DARKROOM_HOME")
    folder = Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("darkroom"))
    return folder.absolute()


def store_folder() -> Path:
    """Where fetched weights lie, by their content."""
    return data_folder() / "models"


def registry_file() -> Path:
    """The registry: one SQLite file."""
    return data_folder() / "registry.sqlite"


def network_disk(path: Path, mounts: Path = _MOUNTS) -> str | None:
    """The kind of network file system that a path is on; None for a local disk, and where that cannot be told.

    `mounts` is the kernel's list, which only Linux has.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    real, best, kind = path.resolve(), -1, ""
    for line in lines:
        _, point, name, *_ = [*line.split(" "), "", "", ""]
        where = Path(point.replace("\\040", " ").replace("\\011", "\t"))
        if real.is_relative_to(where) and len(where.parts) >= best:  # a later mount hides an earlier one
            best, kind = len(where.parts), name
    return kind if kind in NETWORK else None
