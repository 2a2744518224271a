"""Shards as a place that MMEngine reads files from."""
from pathlib import Path
from typing import Optional, Union

from mmengine.fileio import BaseStorageBackend, register_backend

from trm_ml_mm.datasets.base import MissingImage
from trm_ml_mm.labels.image_names import image_name

from .folder import Place, ShardFolder
from .local_copies import LocalCopies


@register_backend('trm_ml_mm.shards')
class ShardBackend(BaseStorageBackend):
    """A file backend of MMEngine: images keep their paths, and are read from
    shards. ``LoadImageFromFile`` takes it as it is::

        dict(type='LoadImageFromFile', backend_args=dict(
            backend='trm_ml_mm.shards', folder='shards', root='data/coco'))

    The option ``shards=FOLDER`` of a config writes this into all its
    pipelines (:func:`~trm_ml_mm.engine.shorthands.set_shards`).

    Args:
        folder: The shards, which ``tools/make_shards.py`` writes.
        root: ``data_root`` of the data set: what the names of images in the
            shards are relative to.
        cache: Folder on a local disk for copies of the shards.
        cache_gb: Most gigabytes of it; None: what the disk has.

    Raises:
        FileNotFoundError: If there are no whole shards.
        ValueError: If the index is damaged, or the limit not positive.
    """

    def __init__(self, folder: Union[str, Path], root: str = '',
                 cache: Optional[str] = None,
                 cache_gb: Optional[float] = None):
        self.root = root
        self.shards = ShardFolder(
            folder, None if cache is None else LocalCopies(cache, cache_gb))

    def get(self, filepath: Union[str, Path]) -> bytes:
        """The content of an image file.

        Raises:
            MissingImage: If no shard has it.
            UnreadableImage: If its shard is damaged.
        """
        content = self.shards.read(self._name(filepath))
        if content is None:
            raise MissingImage(
                f'Image {filepath} is not in the shards '
                f'{self.shards.folder}, under the name '
                f'{self._name(filepath)}: give the command of '
                'tools/make_shards.py again, which adds what is new, or take '
                'it out of the list.')
        return content

    def get_text(self, filepath: Union[str, Path],
                 encoding: str = 'utf-8') -> str:
        return self.get(filepath).decode(encoding)

    def isfile(self, filepath: Union[str, Path]) -> bool:
        """Whether the index has an image. Its shard is not looked at."""
        return self.find(filepath) is not None

    exists = isfile

    def find(self, filepath: Union[str, Path]) -> Optional[Place]:
        """Where an image is; None: no shard has it."""
        return self.shards.find(self._name(filepath))

    def where(self, filepath: Union[str, Path]) -> str:
        """The place of an image, in words."""
        return self.shards.where(self._name(filepath))

    def _name(self, filepath: Union[str, Path]) -> str:
        return image_name(str(filepath), self.root)
