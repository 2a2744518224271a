"""Image names of a label file, which may list each image only once."""
import os
from pathlib import Path


class ImageNames:
    """Image paths of a label file, which may list each image only once.

    Args:
        folder: Where the images are.
        must_exist: Refuse a missing image at once.
    """

    def __init__(self, folder: Path, must_exist: bool):
        self.folder, self.must_exist = folder, must_exist
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
        if self.must_exist and not os.path.isfile(path):
            raise FileNotFoundError(
                f'{where}: image {path} does not exist; mend the path or '
                'data_prefix, or drop the line.')
        return path
