"""Names of images, and those of a label file, which may list each image only
once."""
import os
from pathlib import Path
from typing import Callable


def image_name(path: str, root: str = '') -> str:
    """How caches and shards call an image: its path relative to the root of
    the data set, so that both can move together."""
    return os.path.relpath(path, root) if root else path


class ImageNames:
    """Image paths of a label file, which may list each image only once.

    Args:
        folder: Where the images are.
        must_exist: Refuse a missing image at once.
        is_image: Whether there is an image of a path.
    """

    def __init__(self, folder: Path, must_exist: bool,
                 is_image: Callable[[str], bool] = os.path.isfile):
        self.folder, self.must_exist = folder, must_exist
        self.is_image = is_image
        self.first = {}

    def path(self, name: str, where: str) -> str:
        """Path of an image.

        Raises:
            ValueError: If the name is empty, or was listed before.
            FileNotFoundError: If the image is missing and must exist.
        """
        if not name:
            raise ValueError(f'{where} names no image.')
        path = str(self.folder / os.path.normpath(name))
        if path in self.first:
            raise ValueError(f'{where}: the image "{name}" is already in '
                             f'{self.first[path]}; keep one of them.')
        self.first[path] = where
        if self.must_exist and not self.is_image(path):
            raise FileNotFoundError(
                f'{where}: image {path} does not exist; mend the path or '
                'data_prefix, or drop the line.')
        return path
