"""Copies of shards on a local disk, for shards on a network disk."""
import errno
import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import Dict, Optional, Union

from filelock import FileLock, Timeout
from mmengine.logging import print_log

from trm_ml_mm.utils.checks import check_positive
from trm_ml_mm.utils.io import atomic_write


class LocalCopies:
    """Copies a whole shard when an image of it is first read.

    One process of a machine copies at a time. Others read the original
    meanwhile. When the folder is full, the other shards are read from where
    they are; nothing is ever removed.

    Args:
        folder: On a local disk. Several sets of shards may share it.
        limit_gb: Most gigabytes that the folder may take; None: what the disk
            has.

    Raises:
        ValueError: If the limit is not positive.
    """

    def __init__(self, folder: Union[str, Path],
                 limit_gb: Optional[float] = None):
        if limit_gb is not None:
            check_positive(cache_gb=limit_gb)
        self.folder, self.limit_gb = Path(folder), limit_gb
        self.found: Dict[Path, Path] = {}  # shard -> where to read it
        self.is_full = False

    def path(self, shard: Path) -> Optional[Path]:
        """Where to read a shard: its copy, or itself if there is no room.
        None: another process copies just now."""
        if shard not in self.found:
            path = self._copied(shard)
            if path is None:
                return None
            self.found[shard] = path
        return self.found[shard]

    def _copied(self, shard: Path) -> Optional[Path]:
        source = os.path.abspath(shard.parent)
        name = hashlib.sha256(os.fsencode(source)).hexdigest()[:16]
        copy = self.folder / f'{shard.parent.name}-{name}' / shard.name
        if not shard.is_file():
            return shard  # whoever opens it says so
        if is_copy(copy, shard):
            return copy
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / '.lock', timeout=0):
                if not is_copy(copy, shard) and not self._copy(shard, copy):
                    self._say_full()
                    return shard
        except Timeout:
            return None
        return copy

    def _copy(self, shard: Path, copy: Path) -> bool:
        """Whether there was room for it. Only with the lock."""
        for part in self.folder.glob('*/.*.part'):  # of a killed process
            part.unlink()
        copy.unlink(missing_ok=True)  # an older one
        status = shard.stat()
        taken = sum(p.stat().st_size for p in self.folder.glob('*/*.tar'))
        if self.limit_gb is not None and (
                taken + status.st_size > self.limit_gb * 1e9):
            return False
        try:
            with atomic_write(copy, status.st_size) as fresh:
                shutil.copyfile(shard, fresh)
                os.utime(fresh, ns=(status.st_atime_ns, status.st_mtime_ns))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return False
            raise
        return True

    def _say_full(self) -> None:
        if not self.is_full:
            self.is_full = True
            limit = 'the disk' if self.limit_gb is None else (
                f'cache_gb={self.limit_gb:g}')
            print_log(f'{self.folder} has no room for more copies of shards '
                      f'({limit}): the others are read from where they are.',
                      'current', logging.WARNING)


def is_copy(copy: Path, shard: Path) -> bool:
    """Whether one file is a copy of the other: same size, same time."""
    try:
        one, other = copy.stat(), shard.stat()
    except FileNotFoundError:
        return False
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
