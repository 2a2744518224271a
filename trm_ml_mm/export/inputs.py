"""What goes into an exported file, and how images become that."""
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_ml_mm.apis import MultiLabelInferencer
from trm_ml_mm.datasets.images import ImageLike, read_image

# OpenCV's ways to resize that PyTorch and ONNX have too.
MODES = ('bilinear', 'bicubic')
PROBES = ((80, 120), (120, 80))  # (height, width) of two images


class InputRule(NamedTuple):
    """How a model takes images."""

    size: Tuple[int, int]  # height and width that the model was trained at
    mode: Optional[str]  # how a whole image is resized to that; None: else
    mean: Optional[Tuple[float, ...]]  # of each channel, 0..255; None: none
    std: Optional[Tuple[float, ...]]
    channels: str  # their order, 'RGB' or 'BGR'


def input_rule(predict: MultiLabelInferencer) -> InputRule:
    """The rule of a loaded model.

    Raises:
        ValueError: If it takes images of more than one size, or pads them.
    """
    images = [np.zeros((*size, 3), np.uint8) for size in PROBES]
    sizes = {tuple(resized(predict, [image]).shape[-2:]) for image in images}
    if len(sizes) > 1:
        raise ValueError(
            'The model takes images of several sizes, and a file has one: end '
            'the test pipeline of its config with a Resize to one size, '
            'without keep_ratio, or with a CenterCrop.')
    size, = sizes
    pre = predict.model.data_preprocessor
    if any(side % pre.pad_size_divisor for side in size):
        raise ValueError(
            f'The model pads images of {size[1]} x {size[0]} pixels to a '
            f'multiple of {pre.pad_size_divisor}: resize to such a size in '
            'the test pipeline of its config.')
    mean, std = (tuple(getattr(pre, name).flatten().tolist())
                 if hasattr(pre, name) else None for name in ('mean', 'std'))
    return InputRule(size, _mode(predict.steps), mean, std,
                     'RGB' if pre.to_rgb else 'BGR')


def _mode(steps: Sequence[dict]) -> Optional[str]:
    """How a pipeline resizes a whole image, if it does nothing else."""
    if len(steps) != 1 or steps[0]['type'] != 'Resize':
        return None
    options = dict(dict(interpolation='bilinear', backend='cv2'), **steps[0])
    if options['interpolation'] not in MODES or options['backend'] != 'cv2':
        return None
    return options['interpolation']


class ImageInput(nn.Module):
    """RGB images as they are -> what the backbone takes.

    Args:
        rule: Of the model.
    """

    def __init__(self, rule: InputRule):
        super().__init__()
        self.rule = rule
        for name in ('mean', 'std'):
            value = getattr(rule, name)
            self.register_buffer(name, None if value is None else torch.tensor(
                value).view(-1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """``(B, 3, H, W)`` uint8 -> ``(B, 3, *size)`` normalised fp32.

        Images are resized if H or W differ from the model's; see
        :func:`resize`.
        """
        x = image.float()
        if self.rule.mode is not None:
            x = resize(x, self.rule.size, self.rule.mode)
        if self.rule.channels == 'BGR':
            x = x.flip(1)
        if self.mean is not None:
            x = (x - self.mean) / self.std
        return x


def resize(image: Tensor, size: Tuple[int, int], mode: str) -> Tensor:
    """Resize as OpenCV does: without anti-aliasing, and rounded to whole
    values. No value differs from OpenCV's by more than 1 of 255, because
    OpenCV rounds the weights too.

    Args:
        image: ``(B, 3, H, W)`` of values 0..255.
        size: Height and width.
        mode: One of ``MODES``.
    """
    x = F.interpolate(image, size, mode=mode, align_corners=False)
    return x.round().clamp(0, 255)


def resized(predict: MultiLabelInferencer, images: Sequence[ImageLike]
            ) -> Tensor:
    """Images at the model's size, by its own pipeline: ``(B, 3, H, W)`` uint8
    in BGR.

    Raises:
        FileNotFoundError, ValueError: If one cannot be read.
    """
    found = []
    for batch in predict.preprocess(list(images), len(images)):
        for entry in batch:
            if 'error' in entry:
                raise entry['error']
            found.append(entry['views'][0]['inputs'])
    return torch.stack(found)


def file_input(predict: MultiLabelInferencer, images: Tensor,
               preprocess: bool) -> np.ndarray:
    """What a file takes for images of the model's size.

    Args:
        predict: Of the model.
        images: ``(B, 3, H, W)`` uint8 in BGR.
        preprocess: Whether the file normalises them.
    """
    if preprocess:
        return images.flip(1).numpy()
    return normalised(predict, images).numpy()


def normalised(predict: MultiLabelInferencer, images: Tensor) -> Tensor:
    """What the model's backbone takes, by its own preprocessor."""
    return predict.model.data_preprocessor(dict(inputs=images))['inputs']


def whole_images(images: Sequence[ImageLike]) -> List[np.ndarray]:
    """Images as they are, each ``(1, 3, H, W)`` uint8 in RGB."""
    return [np.ascontiguousarray(
        read_image(image)[None, ..., ::-1].transpose(0, 3, 1, 2))
            for image in images]
