"""Write image files into shards, so that a kill loses at most one shard."""
import os
import zlib
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
from filelock import FileLock, Timeout

from trm_ml_mm.datasets.base import UnreadableImage
from trm_ml_mm.labels.image_names import image_name
from trm_ml_mm.utils.io import atomic_write, write_text
from trm_ml_mm.utils.screen import track

from .folder import ShardFolder
from .layout import (
    BLOCK,
    INDEX,
    RECORD,
    header,
    is_inside,
    map_records,
    name_hash,
    padding,
    shard_path,
)

SKIPPED = 'skipped.txt'
LARGEST = 2**31 - 2**20  # bytes of an image: one call reads no more
AHEAD = 64  # images that are read at once


class ImageList(NamedTuple):
    """Image files, and the folder that each one's name is relative to."""

    paths: List[str]
    roots: List[str]

    def name(self, i: int) -> str:
        return image_name(self.paths[i], self.roots[i])


class Written(NamedTuple):
    """What :func:`write_shards` did."""

    added: int  # images
    images: int  # in all shards
    shards: int
    skipped: int  # images that cannot be read


def write_shards(images: ImageList, folder: Union[str, Path],
                 shard_size: int = 10**9, skip_unreadable: bool = False
                 ) -> Written:
    """Add the images that a folder of shards does not have yet.

    Whole shards stay as they are, so a second call goes on where a killed one
    stopped, with the same bytes as one that was not killed. An image is known
    by its name alone: of one that was replaced, the old content stays.

    Args:
        images: In the order in which they are stored. One that is listed
            twice is stored once.
        folder: Created if there is none.
        shard_size: Of a tar file, in bytes; it is exceeded by an image that
            is larger.
        skip_unreadable: Leave out images that cannot be read, and list them in
            ``skipped.txt``. (Images are not decoded here, see
            :func:`undecodable`.)

    Raises:
        UnreadableImage: If an image is missing, empty or cannot be read.
        ValueError: If two images have the same name, a name leaves its folder,
            or the folder has damaged shards.
        OSError: If another process writes there, or the disk is full.
    """
    folder = Path(folder)
    hashes = _hashes(images)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / '.lock', timeout=0):
            return _write(images, hashes, folder, shard_size, skip_unreadable)
    except Timeout:
        raise OSError(f'Another process is writing shards to {folder}: wait '
                      'until it has ended.') from None


def _write(images: ImageList, hashes: np.ndarray, folder: Path,
           shard_size: int, skip_unreadable: bool) -> Written:
    for left in folder.glob('.*.part'):  # of a killed process
        left.unlink()
    parts = _whole_shards(folder)
    known = np.concatenate([part['hash'] for part in parts]
                           or [np.empty(0, np.uint64)])
    _, first = np.unique(hashes, return_index=True)
    todo = np.sort(first[~np.isin(hashes[first], known)])
    skipped: List[str] = []
    contents = _readable(images, todo, skipped if skip_unreadable else None)
    image = next(contents, None)
    while image is not None:
        part, image = _write_shard(folder, len(parts), image, contents,
                                   shard_size)
        parts.append(part)
    records = np.concatenate(parts) if parts else np.empty(0, RECORD)
    if len(records) > len(known) or not (folder / INDEX).is_file():
        _save(folder / INDEX, np.sort(records, order='hash', kind='stable'))
    (folder / SKIPPED).unlink(missing_ok=True)
    if skipped:
        write_text(folder / SKIPPED, ''.join(f'{one}\n' for one in skipped))
    return Written(len(records) - len(known), len(records), len(parts),
                   len(skipped))


def _hashes(images: ImageList) -> np.ndarray:
    """Of all names, ``(N,)`` uint64."""
    hashes = np.empty(len(images.paths), np.uint64)
    for i in range(len(hashes)):
        name = images.name(i)
        if not is_inside(name):
            raise ValueError(
                f'Image {images.paths[i]} lies outside of '
                f'{images.roots[i] or "its data_root"}: set data_root to a '
                'folder that holds it.')
        hashes[i] = name_hash(name)
    order = np.argsort(hashes, kind='stable')
    twice = np.flatnonzero(np.diff(hashes[order]) == 0)
    for one, other in zip(order[twice], order[twice + 1]):
        if not _same(images, one, other):
            raise ValueError(
                f'The images {images.paths[one]} and {images.paths[other]} '
                f'would both be {images.name(other)}: write a folder of '
                'shards for each of the data sets, or set a data_root that '
                'holds both.')
    return hashes


def _same(images: ImageList, one: int, other: int) -> bool:
    return images.name(one) == images.name(other) and os.path.abspath(
        images.paths[one]) == os.path.abspath(images.paths[other])


def _whole_shards(folder: Path) -> List[np.ndarray]:
    """The records of each shard that is whole.

    Raises:
        ValueError: If one between them is missing or cut off.
    """
    count = len(list(folder.glob('shard-*.npy')))
    parts = []
    for number in range(count):
        path = shard_path(folder, number)
        records = path.with_suffix('.npy')
        if not path.is_file() or not records.is_file():
            raise ValueError(f'{folder} has {count} shards, and {path.name} is '
                             'not whole: copy it again, or delete the folder '
                             'and make it again.')
        parts.append(map_records(records))
        last = parts[-1][-1:]
        whole = (last['offset'] + last['size']).sum() + 3 * BLOCK
        if whole > path.stat().st_size:
            raise ValueError(f'{path} is cut off: copy it again, or delete '
                             f'{folder} and make it again.')
    return parts


def _readable(images: ImageList, todo: np.ndarray,
              skipped: Optional[List[str]]) -> Iterator[Tuple[str, bytes]]:
    """(Name, content) of the images that can be read, read ahead by threads.
    The others are added to ``skipped``; None: they are errors."""
    with ThreadPool(8) as pool:
        for i, content in track(_ahead(pool, images.paths, todo),
                                'Writing shards', len(todo)):
            if isinstance(content, bytes):
                yield images.name(i), content
            elif skipped is None:
                raise UnreadableImage(
                    f'Image {images.paths[i]} cannot be read ({content}): '
                    'repair it, take it out of the list, or give '
                    '--skip-unreadable.')
            else:
                skipped.append(f'{images.paths[i]}: {content}')


def _ahead(pool: ThreadPool, paths: Sequence[str], todo: np.ndarray
           ) -> Iterator[Tuple[int, Union[bytes, str]]]:
    for start in range(0, len(todo), AHEAD):
        chosen = todo[start:start + AHEAD]
        yield from zip(chosen, pool.map(_content, [paths[i] for i in chosen]))


def _content(path: str) -> Union[bytes, str]:
    """Of a file; or, as text, why there is none."""
    try:
        with open(path, 'rb') as file:
            size = os.fstat(file.fileno()).st_size
            if not 0 < size < LARGEST:
                return 'it is empty' if size == 0 else 'it is too large'
            return file.read()
    except OSError as error:
        return error.strerror or str(error)


def _write_shard(folder: Path, number: int, image: Tuple[str, bytes],
                 images: Iterator[Tuple[str, bytes]], shard_size: int
                 ) -> Tuple[np.ndarray, Optional[Tuple[str, bytes]]]:
    """Write one shard, from ``image`` on. Returns its records, and the first
    image of the next one."""
    path, records, offset = shard_path(folder, number), [], 0
    with atomic_write(path) as fresh, open(fresh, 'wb') as file:
        while image is not None:
            name, content = image
            head, tail = header(name, len(content)), padding(len(content))
            end = offset + len(head) + len(content) + len(tail)
            if records and end > shard_size:
                break
            for piece in (head, content, tail):
                file.write(piece)
            records.append((name_hash(name), offset, number, len(content),
                            zlib.crc32(content)))
            offset, image = end, next(images, None)
        file.write(bytes(2 * BLOCK))  # the end of a tar file
    part = np.array(records, RECORD)
    _save(path.with_suffix('.npy'), part)  # from here on it is whole
    return part, image


def _save(path: Path, records: np.ndarray) -> None:
    with atomic_write(path, records.nbytes) as fresh, open(fresh, 'wb') as file:
        np.save(file, records, allow_pickle=False)


def undecodable(images: ImageList, folder: Union[str, Path]) -> List[str]:
    """Read and decode every image of a list from its shard, as training does.

    Returns:
        A sentence for each image that is missing, damaged, or cannot be
        decoded.
    """
    shards = ShardFolder(folder)

    def problem(i: int) -> Optional[str]:
        name = images.name(i)
        try:
            content = shards.read(name)
        except (UnreadableImage, FileNotFoundError) as error:
            return str(error)
        if content is None:
            return f'Image {name} is {shards.where(name)}.'
        if cv2.imdecode(np.frombuffer(content, np.uint8), 0) is None:
            return f'Image {name}, {shards.where(name)}, cannot be decoded.'
        return None

    with ThreadPool(8) as pool:
        return [text for text in track(
            pool.imap(problem, range(len(images.paths))), 'Decoding images',
            len(images.paths)) if text is not None]
