"""Find images and read them as training does."""
import glob
import os
from pathlib import Path
from typing import List, Sequence, Union

import cv2
import numpy as np
from PIL import Image, ImageOps

from .base import MissingImage, UnreadableImage

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.gif',
            '.ppm', '.pgm', '.jp2', '.avif')
# A path, an array in OpenCV's order (BGR), or Pillow's image.
ImageLike = Union[str, Path, np.ndarray, Image.Image]


def find_images(inputs: Union[ImageLike, Sequence[ImageLike]]
                ) -> List[Union[str, np.ndarray, Image.Image]]:
    """Files and images, in order.

    Args:
        inputs: A file; a folder (its images, in subfolders too, sorted); a
            pattern such as ``'photos/*.jpg'`` (``**`` for subfolders); an
            array; an image of Pillow; or a list of these.

    Raises:
        FileNotFoundError: If a path does not exist, a folder has no image, or
            a pattern matches none.
        ValueError: If an input is none of these.
    """
    if isinstance(inputs, (list, tuple)):
        return [image for one in inputs for image in find_images(one)]
    if isinstance(inputs, (np.ndarray, Image.Image)):
        return [inputs]
    if not isinstance(inputs, (str, os.PathLike)):
        raise ValueError(f'{type(inputs).__name__} is no image: give a path, '
                         'a folder, a pattern, an array or an image of '
                         'Pillow.')
    path = str(inputs)
    if os.path.isdir(path):
        found = sorted(str(p) for p in Path(path).rglob('*')
                       if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise FileNotFoundError(f'The folder {path} has no image '
                                    f'({", ".join(SUFFIXES)}).')
        return found
    if os.path.isfile(path):
        return [path]
    if glob.has_magic(path):
        found = sorted(p for p in glob.glob(path, recursive=True)
                       if os.path.isfile(p))
        if not found:
            raise FileNotFoundError(f'No file matches the pattern {path}.')
        return found
    raise FileNotFoundError(f'The image {path} does not exist: give a file, a '
                            'folder, or a pattern in quotation marks.')


def read_image(image: ImageLike) -> np.ndarray:
    """An image as training sees it: ``(H, W, 3)`` uint8, BGR.

    The orientation in a photo's EXIF data is applied. Grey images get three
    equal channels, CMYK becomes RGB, transparency is dropped, 16 bits become
    8, and of an animation the first frame is taken.

    Raises:
        MissingImage: If there is no such file.
        UnreadableImage: If it cannot be decoded.
        ValueError: If an array is no image.
    """
    if isinstance(image, Image.Image):
        return _from_pillow(image)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    try:
        content = np.fromfile(image, np.uint8)
    except FileNotFoundError as error:
        raise MissingImage(f'The image {image} does not exist.') from error
    pixels = None
    if content.size:
        try:
            pixels = cv2.imdecode(content, cv2.IMREAD_COLOR)
        except cv2.error:  # larger than OpenCV's limit
            pass
    if pixels is None:
        raise UnreadableImage(f'The image {image} cannot be decoded: it is '
                              'damaged, or no image that OpenCV reads.')
    return pixels


def _from_pillow(image: Image.Image) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith('I'):  # 16 bits, or 16 of 32
        return _from_array(np.asarray(image).astype(np.uint16))
    return np.ascontiguousarray(np.asarray(image.convert('RGB'))[..., ::-1])


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype != np.uint8 or array.ndim != 3 or (
            array.shape[2] not in (1, 3, 4)) or not array.size:
        raise ValueError(
            f'An array of shape {array.shape} and type {array.dtype} is no '
            'image: give (H, W) or (H, W, 3) of type uint8, in BGR as OpenCV '
            'reads it.')
    if array.shape[2] == 1:
        array = np.repeat(array, 3, 2)
    return np.ascontiguousarray(array[..., :3])


def name_of(image: ImageLike, index: int) -> str:
    """What to call an image: its path, or its number."""
    if isinstance(image, (str, os.PathLike)):
        return str(image)
    return getattr(image, 'filename', '') or f'image {index}'


