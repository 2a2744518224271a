"""Features of a frozen tower, stored in memory-mapped files.

A cache is a folder with the features of images of one data set:

* ``meta.json``: what the features belong to.
* ``images.json``: for every image its file, and where its features are.
* ``part_0/``, ``part_1/``, ...: ``features.npy`` ``(N, K, 1 + L, D)`` (N
  images, K views, rows as in :mod:`~trm_ml_mm.models.towers.layout`) and
  ``state.npy`` ``(N, K)``.

Images that are added later get parts of their own. What is in a part never
moves, so that a training which reads the cache is not disturbed. A part is
removed when no image has its features there any more.

A part is of a limited size, and who fills it holds its lock. So machines that
know nothing of each other can fill one cache together, and no two of them
write to the same file.
"""
import hashlib
import json
import os
import re
import shutil
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import (
    Callable,
    Dict,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
from filelock import FileLock, Timeout
from mmengine.fileio import BaseStorageBackend

from trm_ml_mm.datasets.base import LOCAL
from trm_ml_mm.datasets.shards import ShardBackend
from trm_ml_mm.labels.image_names import image_name
from trm_ml_mm.models.towers import row_shape
from trm_ml_mm.utils.io import existing, read_json, write_text

FORMAT = 2  # 1 found features by the number of the image in the data set
TODO, DONE, UNREADABLE = 0, 1, 2
NO_FILE = -1  # size of an image without a file: rendered, or missing
ADVICE = 'make it with tools/cache_features.py'
PART_GB = 4.


class CacheMeta(NamedTuple):
    """What a cache belongs to. All of it must agree with the run that uses
    the cache."""

    tower: str  # fingerprint of the frozen tower
    normalisation: dict  # of the images: mean, std, order of channels
    pipeline: list  # the transforms before it, as configs
    views: int  # K
    grid: Tuple[int, int]  # height and width of the dense map
    dim: int  # D
    dtype: str  # 'float16' or 'float32'

    def shape(self, images: int) -> Tuple[int, int, int, int]:
        """Of ``features.npy`` for a number of images: (N, K, 1 + L, D)."""
        return images, self.views, *row_shape(self.grid, self.dim)

    def bytes(self, images: int) -> int:
        """Size of the features of a number of images."""
        return int(np.prod(self.shape(images))) * np.dtype(self.dtype).itemsize


class ImageFile(NamedTuple):
    """An image of a data set, and what can be known without reading it."""

    name: str  # relative to the root of the data set
    path: str
    size: int  # in bytes; NO_FILE: there is no file
    time: int  # of its last change, in nanoseconds
    backend: BaseStorageBackend = LOCAL


class Entry(NamedTuple):
    """Where the features of an image are, and which file they are of."""

    part: int
    row: int
    size: int
    time: int
    digest: str  # of the content; without a file, of the name


class NewImage(NamedTuple):
    """An image that a cache does not have yet."""

    name: str
    size: int
    time: int
    digest: str


class Update(NamedTuple):
    """What :meth:`FeatureCache.update` did, in numbers of images."""

    added: int  # new, or with another content
    gone: int  # whose file does not exist any more


def image_files(paths: Sequence[str], root: str = '',
                backend: BaseStorageBackend = LOCAL) -> List[ImageFile]:
    """The images of a data set whose folder is ``root``."""
    found = []
    for path in paths:
        if isinstance(backend, ShardBackend):
            found.append(_image_in_shards(path, root, backend))
            continue
        try:
            status = os.stat(path)
            size, time = status.st_size, status.st_mtime_ns
        except OSError:
            size, time = NO_FILE, 0
        found.append(ImageFile(image_name(path, root), path, size, time))
    return found


def _image_in_shards(path: str, root: str, backend: ShardBackend
                     ) -> ImageFile:
    """Its checksum stands for the time of its last change."""
    place = backend.find(path)
    size, time = (NO_FILE, 0) if place is None else (place.size, place.crc)
    return ImageFile(image_name(path, root), path, size, time, backend)


def digest_of(file: ImageFile) -> str:
    """SHA-256 of the content; without a file, of the name."""
    if file.size == NO_FILE:
        return hashlib.sha256(file.name.encode()).hexdigest()
    return hashlib.sha256(file.backend.get(file.path)).hexdigest()


def digests_of(files: Sequence[ImageFile]) -> Dict[str, str]:
    """:func:`digest_of` of many files, by name."""
    if not files:
        return {}
    with ThreadPool(8) as pool:
        return dict(zip([file.name for file in files],
                        pool.map(digest_of, files)))


class FeatureCache:
    """One folder of features, open for reading or filling.

    Args:
        folder: The cache.
        write: Open it for filling.

    Raises:
        FileNotFoundError: If there is no cache.
        ValueError: If a file of it is damaged, or it is of another version.
    """

    def __init__(self, folder: Union[str, Path], write: bool = False):
        self.folder = Path(folder)
        self.mode = 'r+' if write else 'r'
        self.meta = self._read_meta()
        self.entries: Dict[str, Entry] = self._read_entries()
        self.features: Dict[int, np.ndarray] = {}  # of each part
        self.state: Dict[int, np.ndarray] = {}
        rows = {}
        for entry in self.entries.values():
            rows[entry.part] = max(rows.get(entry.part, 0), entry.row + 1)
        for part, count in rows.items():
            self._open_part(part, count)

    def _damaged(self, why: object) -> ValueError:
        return ValueError(f'{self.folder} is damaged ({why}): delete it and '
                          'make it again with tools/cache_features.py.')

    def _read_meta(self) -> CacheMeta:
        content = read_json(self.folder / 'meta.json', 'feature cache',
                            advice=ADVICE)
        try:
            if content.pop('format', 1) != FORMAT:
                raise TypeError('format')
            return CacheMeta(**dict(content, grid=tuple(content['grid'])))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f'{self.folder} is a feature cache of another version of '
                'trm_ml_mm, or damaged: delete it and make it again with '
                'tools/cache_features.py.') from error

    def _read_entries(self) -> Dict[str, Entry]:
        path = self.folder / 'images.json'
        content = read_json(path, 'feature cache', advice=ADVICE)
        try:
            entries = {name: Entry(*entry) for name, entry in content.items()}
            for entry in entries.values():
                if not (all(type(n) is int for n in entry[:4])
                        and min(entry[:2]) >= 0 and type(entry[4]) is str):
                    raise TypeError(f'{entry}')
        except (TypeError, ValueError, AttributeError) as error:
            raise self._damaged(error) from error
        return entries

    def _open_part(self, part: int, rows: int) -> None:
        try:
            for name, arrays, shape in (
                    ('features', self.features, self.meta.shape(rows)),
                    ('state', self.state, (rows, self.meta.views))):
                path = existing(self._part(part) / f'{name}.npy', 'Cache file',
                                ADVICE)
                array = np.load(path, mmap_mode=self.mode)
                if array.shape[1:] != shape[1:] or len(array) < rows:
                    raise ValueError(f'{path} has the shape {array.shape}')
                arrays[part] = array
        except FileNotFoundError:
            raise
        except Exception as error:  # a damaged file can raise anything
            raise self._damaged(error) from error

    def reopen(self, part: int) -> None:
        """See what another process has written to a part."""
        self._open_part(part, len(self.state[part]))

    def _part(self, number: int) -> Path:
        return self.folder / f'part_{number}'

    @classmethod
    def create(cls, folder: Union[str, Path], meta: CacheMeta
               ) -> 'FeatureCache':
        """Create a cache without images."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / 'images.json', '{}')
        # Written last: a cache with this file is complete, if not yet filled.
        write_text(folder / 'meta.json', json.dumps(
            dict(format=FORMAT, **meta._asdict())))
        return cls(folder, write=True)

    def check(self, meta: CacheMeta) -> None:
        """Refuse to serve a run with other settings.

        Raises:
            ValueError: Names what differs.
        """
        what = dict(
            tower='another frozen tower (weights, architecture, size, dense '
            'map or windows)',
            normalisation='another normalisation of the images',
            pipeline='another pipeline',
            views='another number of views',
            grid='another input size',
            dim='another joint width',
            dtype='another precision')
        for name, own in meta._asdict().items():
            if getattr(self.meta, name) != own:
                raise ValueError(
                    f'The features in {self.folder} belong to {what[name]}: '
                    'compute them again, in another folder, with '
                    'tools/cache_features.py.')

    def find(self, files: Sequence[ImageFile]) -> List[Optional[Entry]]:
        """Where the features of images are; None for one that is new, or whose
        content changed. A file is read only if its time alone differs."""
        found = [self.entries.get(file.name) for file in files]
        same_size = [file for file, entry in zip(files, found) if entry
                     and entry.size == file.size and entry.time != file.time]
        digests = digests_of(same_size)
        return [entry if entry and entry.size == file.size and digests.get(
            file.name, entry.digest) == entry.digest else None
            for file, entry in zip(files, found)]

    def check_complete(self, files: Sequence[ImageFile]) -> None:
        """Refuse a cache that lacks features of these images.

        Raises:
            ValueError: Says how many are missing.
        """
        found = self.find(files)
        missing = [file.name for file, entry in zip(files, found)
                   if entry is None]
        if missing:
            raise ValueError(
                f'The features in {self.folder} lack {len(missing)} of '
                f'{len(files)} images, which are new or changed, such as '
                f'{missing[0]}: run tools/cache_features.py again, it computes '
                'only these.')
        state = self.states(found)
        if (state == TODO).any():
            raise ValueError(
                f'{self.folder} lacks {int((state == TODO).sum())} of '
                f'{state.size} views: run tools/cache_features.py again, it '
                'continues where it stopped.')

    def states(self, entries: Sequence[Entry]) -> np.ndarray:
        """``(N, K)`` state of each view."""
        parts, rows = (np.array([entry[i] for entry in entries], np.int64)
                       for i in range(2))
        found = np.zeros((len(entries), self.meta.views), np.uint8)
        for part, state in self.state.items():
            found[parts == part] = np.asarray(state)[rows[parts == part]]
        return found

    def update(self, files: Sequence[ImageFile], root: str = '',
               exists: Callable[[str], bool] = os.path.exists,
               part_gb: float = PART_GB) -> Update:
        """Make room for the images that are new or have another content, and
        forget those whose file does not exist any more.

        A file that was moved or renamed is recognised by its content, and one
        that was copied elsewhere with another time too. Images that are not
        among ``files`` stay, as long as their files do: another table may name
        them.

        Args:
            files: All images of the data set.
            root: Of the data set.
            exists: Whether there is an image of a path.
            part_gb: Most gigabytes of the features in a part.

        Raises:
            OSError: If the disk has too little room; says how much is needed.
        """
        with FileLock(self.folder / '.lock'):
            self.entries = self._read_entries()
            named = {file.name for file in files}
            others = {
                name: entry for name, entry in self.entries.items()
                if name not in named and (
                    entry.size == NO_FILE
                    or exists(os.path.join(root, name)))}
            gone = len(self.entries.keys() - others.keys() - named)
            entries, new = self._sorted(files)
            parts = self._create_parts(new, part_gb)
            for part, images in parts.items():
                for row, entry in enumerate(images):
                    entries[entry.name] = Entry(part, row, *entry[1:])
            # From here on the cache has the new images, and not before.
            whole = {**others, **entries}
            if whole != self.entries:
                self.entries = whole
                write_text(self.folder / 'images.json',
                           json.dumps(whole, ensure_ascii=False))
            for part, images in parts.items():
                self._open_part(part, len(images))
            self._remove_unused()
        return Update(len(new), gone)

    def claim(self, part: int) -> Optional[FileLock]:
        """The lock of a part, for whom fills it: release it afterwards. A
        kill releases it too. None: another process fills the part."""
        lock = FileLock(self._part(part) / '.lock', timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return None
        return lock

    def _sorted(self, files: Sequence[ImageFile]
                ) -> Tuple[Dict[str, Entry], List['NewImage']]:
        """Entries of the images that are known, and those that are not."""
        unsure = [file for file in files if file.name not in self.entries or (
            self.entries[file.name][2:4] != (file.size, file.time))]
        digests = digests_of(unsure)
        known = {entry.digest: entry for entry in self.entries.values()}
        entries, new = {}, {}
        for name, _, size, time, _ in files:
            digest = digests.get(name)
            if digest is None:
                entries[name] = self.entries[name]
            elif digest in known:
                entries[name] = known[digest]._replace(size=size, time=time)
            else:
                new[name] = NewImage(name, size, time, digest)
        return entries, list(new.values())

    def _parts_on_disk(self) -> List[int]:
        found = (re.fullmatch(r'part_(\d+)', path.name)
                 for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def _create_parts(self, images: List['NewImage'], part_gb: float
                      ) -> Dict[int, List['NewImage']]:
        """Create parts for new images; number of a part -> its images."""
        need = self.meta.bytes(len(images))
        free = shutil.disk_usage(self.folder).free
        if need > free:
            raise OSError(
                f'The features need {need / 1e9:.1f} GB and {self.folder} has '
                f'{free / 1e9:.1f} GB free: take another --out, fewer --views, '
                'or --dtype float16.')
        first = max(self._parts_on_disk(), default=-1) + 1
        most = max(1, int(part_gb * 1e9 / self.meta.bytes(1)))
        parts = {first + start // most: images[start:start + most]
                 for start in range(0, len(images), most)}
        try:
            for part, some in parts.items():
                self._create_part(part, len(some))
        except BaseException:
            for part in parts:
                shutil.rmtree(self._part(part), ignore_errors=True)
            raise
        return parts

    def _create_part(self, number: int, images: int) -> None:
        """Create the files of a part at their full size."""
        folder = self._part(number)
        need = self.meta.bytes(images)
        folder.mkdir()
        shape = self.meta.shape(images)
        features = np.lib.format.open_memmap(
            folder / 'features.npy', 'w+', self.meta.dtype, shape)
        if hasattr(os, 'posix_fallocate'):  # or a full disk kills the run
            with open(folder / 'features.npy', 'r+b') as file:
                os.posix_fallocate(file.fileno(), 0, features.offset + need)
        np.save(folder / 'state.npy', np.zeros(shape[:2], np.uint8))

    def _remove_unused(self) -> None:
        """Remove parts without images, and what an interrupted update left."""
        used = {entry.part for entry in self.entries.values()}
        for number in self._parts_on_disk():
            if number not in used:
                shutil.rmtree(self._part(number))
                self.features.pop(number, None)
                self.state.pop(number, None)

    def flush(self) -> None:
        """Write everything to the disk."""
        for array in (*self.features.values(), *self.state.values()):
            array.flush()
