"""Inspect data before training: labels, and files that cannot be read."""
from multiprocessing.pool import ThreadPool
from typing import Dict, List, Optional, Sequence

from PIL import Image
from rich.progress import track

from .base import is_readable, resolve_dataset


def image_problem(path: str) -> Optional[str]:
    """Why an image file cannot be used whole, or None."""
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode.startswith('I') and image.getextrema()[1] < 2**12:
                return ('has 16 bits and uses at most 12 of them: training '
                        'divides by 256, so it is black; scale its values to '
                        '0..65535')
    except FileNotFoundError:
        return 'does not exist'
    except Image.DecompressionBombError:  # Pillow's limit, not OpenCV's
        return None if is_readable(path) else 'is too large to be decoded'
    except Exception as error:  # Pillow's plugins raise what they like
        return str(error) or type(error).__name__
    return None


def find_unreadable(paths: Sequence[str], threads: int = 8) -> Dict[str, str]:
    """Decode every file; path -> what is wrong with it, for those that fail."""
    with ThreadPool(threads) as pool:
        problems = track(
            pool.imap(image_problem, paths), 'Reading images', len(paths),
            transient=True)
        return {p: why for p, why in zip(paths, problems) if why is not None}


def image_paths(dataset) -> List[str]:
    """Image files of a data set; none if its pipeline loads no files."""
    first = resolve_dataset(dataset, 0).pipeline.transforms[0]
    if type(first).__name__ != 'LoadImageFromFile':
        return []
    return [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
