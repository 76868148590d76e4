"""Where a file would lie: on a disk of this machine, or on one that others share."""

import os
import re
from pathlib import Path

_TABLE = Path("/proc/self/mountinfo")

# Whatever serves a directory to more than one machine, or to a machine and its guests.
_SHARED = {
    *("nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncpfs", "afs", "coda", "9p"),
    *("lustre", "beegfs", "gpfs", "ceph", "panfs", "pvfs2", "orangefs", "ocfs2", "gfs2"),
    *("vboxsf", "vmhgfs", "prl_fs", "fakeowner", "osxfs", "grpcfuse"),
    *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.davfs", "fuse.mfs"),
    *("fuse.juicefs", "fuse.s3fs", "fuse.goofys", "fuse.gcsfuse", "fuse.rclone", "fuse.blobfuse"),
    *("fuse.blobfuse2", "fuse.vmhgfs-fuse", "fuse.grpcfuse", "fuse.osxfs", "fuse.curlftpfs"),
}


def network_file_system(directory: str | os.PathLike[str]) -> str | None:
    """The kind of network file system that a directory is on, such as "nfs4".

    None for a local one, and where the system keeps no table of mounts (it is not Linux).
    """
    kind, where = _mounted(directory)
    if kind == "9p" and where == Path("/"):
        return None  # some sandboxes serve their own root this way, to nobody else
    return kind if kind in _SHARED else None


def file_system(directory: str | os.PathLike[str]) -> str:
    """The kind of file system that a directory is on; empty where there is no table of mounts."""
    return _mounted(directory)[0]


def _mounted(directory: str | os.PathLike[str]) -> tuple[str, Path]:
    """Kind and place of the mount that a directory is on."""
    try:
        table = _TABLE.read_text(errors="surrogateescape")
    except OSError:
        return "", Path("/")
    path = Path(os.path.realpath(directory))
    kind, where = "", Path("/")
    for line in table.splitlines():
        # 36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/sda1 rw   (man 5 proc)
        before, dash, after = line.partition(" - ")
        if not dash:
            continue
        point = Path(_unescaped(before.split(" ")[4]))
        # The deepest mount counts; of several at one place, the last.
        if path.is_relative_to(point) and point.is_relative_to(where):
            kind, where = after.split(" ")[0], point
    return kind, where


def _unescaped(text: str) -> str:
    """Blanks and line ends in paths are written as octal numbers: \\040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
