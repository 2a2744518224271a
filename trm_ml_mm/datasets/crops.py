"""Cut one object out of an image."""
import math

import numpy as np
from mmcv.transforms import BaseTransform

from trm_ml_mm.registry import TRANSFORMS
from trm_ml_mm.utils.checks import check_not_negative


@TRANSFORMS.register_module()
class CropBox(BaseTransform):
    """Cut the box of a sample out of its image, as of VAW's instances. It
    comes right after the image is loaded.

    Required keys: ``img``; ``crop_box``, ``[x, y, width, height]`` in pixels.
    Changed keys: ``img``, ``img_shape``.

    Args:
        margin: Widen the box on each side by this ratio of its width, or its
            height. What is outside of the image is cut off.

    Raises:
        ValueError: If ``margin`` is negative, a sample has no box, or nothing
            of its box is inside the image; names the image and the instance.
    """

    def __init__(self, margin: float = 0.):
        check_not_negative(margin=margin)
        self.margin = margin

    def transform(self, results: dict) -> dict:
        where = f'{results.get("img_path", "an image")}, instance ' \
                f'{results.get("instance_id", "without an id")}'
        if 'crop_box' not in results:
            raise ValueError(f'{where} has no crop_box: CropBox is for data '
                             'sets of boxes, such as VAW; take it out of the '
                             'pipeline.')
        box, size = results['crop_box'], results['img'].shape[:2]
        left, top, right, bottom = pixels_of(box, size, self.margin)
        if left >= right or top >= bottom:
            raise ValueError(f'{where}: the box {list(box)} (x, y, width, '
                             'height) has no pixel of the image, which is '
                             f'{size[1]} x {size[0]}: correct the box, or '
                             'take the instance out.')
        results['img'] = np.ascontiguousarray(
            results['img'][top:bottom, left:right])
        results['img_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(margin={self.margin})'


def pixels_of(box, size, margin: float = 0.) -> tuple:
    """The pixels that a box touches.

    Args:
        box: ``(x, y, width, height)`` in pixels; fractions are allowed.
        size: ``(height, width)`` of the image.
        margin: See :class:`CropBox`.

    Returns:
        Left, top, right, bottom; the last two are one behind. Left is not less
        than right if the box is empty or outside.
    """
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return 0, 0, 0, 0
    return (max(math.floor(x - margin * width), 0),
            max(math.floor(y - margin * height), 0),
            min(math.ceil(x + (1 + margin) * width), size[1]),
            min(math.ceil(y + (1 + margin) * height), size[0]))


def load_object(transforms, info: dict) -> dict:
    """Load an image as the first steps of a pipeline do, and cut out its box
    if they do.

    Args:
        transforms: Of the pipeline.
        info: Entry of the data set.

    Returns:
        The entry with ``img``.
    """
    info = transforms[0](info)
    if len(transforms) > 1 and isinstance(transforms[1], CropBox):
        info = transforms[1](info)
    return info
