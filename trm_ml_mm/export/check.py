"""Whether a file says what the model says, and how fast."""
import time
from statistics import median
from typing import Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor
from torch.utils.data import DataLoader

from trm_ml_mm.apis import MultiLabelInferencer
from trm_ml_mm.evaluation import average_precision, mean_over_classes
from trm_ml_mm.models.feature_maps import map_size

from .inputs import file_input, normalised, resized, whole_images

Run = Callable[[np.ndarray], List[np.ndarray]]
# Largest difference of a score that rounding explains, in fp32.
TOLERANCE = 1e-4
BATCHES = (1, 7)  # that are compared
SPEED_BATCHES = (1, 8)


class Speed(NamedTuple):
    """Milliseconds that an image takes, in batches of this size."""

    batch: int
    pytorch: float
    file: float


class Report(NamedTuple):
    """What was found out about a file."""

    images: int  # that were compared
    differences: Dict[str, float]  # the largest of each output
    resizing: float  # of a score, if the file resizes; NaN if it does not
    size: int  # in bytes
    speed: List[Speed]


@torch.no_grad()
def model_outputs(predict: MultiLabelInferencer, images: Tensor,
                  maps: bool) -> List[np.ndarray]:
    """What the model itself gives: scores, logits and perhaps maps.

    Args:
        predict: Of the model.
        images: ``(B, 3, H, W)`` uint8 in BGR, of the model's size.
        maps: Whether maps are wanted.
    """
    model = predict.model
    feats = model.extract_feat(normalised(predict, images))
    logits = model.head(feats)
    found = [predict.judge(logits.numpy())[0], logits.numpy()]
    if maps:
        saliency = model.head.saliency(feats)
        found.append(saliency.unflatten(
            2, map_size(feats, saliency.shape[2])).numpy())
    return found


def differences(predict: MultiLabelInferencer, run: Run, images: Sequence,
                outputs: Sequence[str], preprocess: bool) -> Dict[str, float]:
    """The largest difference of each output between a model and its file, over
    images and sizes of batches.

    Args:
        predict: Of the model.
        run: The file.
        images: See :func:`~trm_ml_mm.datasets.images.find_images`.
        outputs: Names of what the file gives.
        preprocess: Whether the file normalises images.
    """
    largest = dict.fromkeys(outputs, 0.)
    for chunk in chunks(images, max(BATCHES)):
        batch = resized(predict, chunk)
        expected = model_outputs(predict, batch, 'maps' in outputs)
        whole = file_input(predict, batch, preprocess)
        for size in BATCHES:
            parts = [run(part) for part in chunks(whole, size)]
            for name, own, found in zip(outputs, expected, zip(*parts)):
                largest[name] = max(largest[name], distance(
                    own, np.concatenate(found)))
    return largest


def resizing_difference(predict: MultiLabelInferencer, run: Run,
                        images: Sequence) -> float:
    """The largest difference of a score that comes from resizing in the
    file."""
    largest = 0.
    for chunk in chunks(images, max(BATCHES)):
        expected = model_outputs(predict, resized(predict, chunk), False)[0]
        found = [run(image)[0] for image in whole_images(chunk)]
        largest = max(largest, distance(expected, np.concatenate(found)))
    return largest


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference; infinite where one has no number."""
    if not np.isfinite(a).all() or not np.isfinite(b).all():
        return float('inf')
    return float(np.abs(a - b).max())


def chunks(values: Sequence, size: int) -> Iterator[Sequence]:
    """Pieces of this size; the last may be smaller."""
    for start in range(0, len(values), size):
        yield values[start:start + size]


def speed(predict: MultiLabelInferencer, run: Run, images: Sequence,
          preprocess: bool, rounds: int) -> List[Speed]:
    """Medians over rounds, from images of the model's size to scores. PyTorch
    and the file take turns."""
    rows = []
    for size in SPEED_BATCHES:
        chosen = [images[i % len(images)] for i in range(size)]
        batch = resized(predict, chosen)
        whole = file_input(predict, batch, preprocess)
        own = batch if preprocess else torch.from_numpy(whole)
        steps = [lambda own=own: _forward(predict, own, preprocess),
                 lambda whole=whole: run(whole)]
        times = [[], []]
        for _ in range(rounds + 1):
            for step, found in zip(steps, times):
                start = time.perf_counter()
                step()
                found.append(1000 * (time.perf_counter() - start) / size)
        # The first round warms up.
        rows.append(Speed(size, *(median(found[1:]) for found in times)))
    return rows


@torch.no_grad()
def _forward(predict: MultiLabelInferencer, images: Tensor, preprocess: bool
             ) -> Tensor:
    if preprocess:
        images = normalised(predict, images)
    return predict.model(images).sigmoid()


def mean_average_precision(predict: MultiLabelInferencer, run: Run, dataset,
                           preprocess: bool, batch_size: int = 7
                           ) -> Tuple[float, float]:
    """mAP of a model and of its file on a labelled set, in percent."""
    scores, targets = ([], []), []
    for batch in DataLoader(dataset, batch_size, collate_fn=pseudo_collate):
        images = torch.stack(batch['inputs'])
        targets += [sample.gt_score for sample in batch['data_samples']]
        scores[0].append(model_outputs(predict, images, False)[1])
        scores[1].append(run(file_input(predict, images, preprocess))[1])
    targets = torch.stack(targets)
    return tuple(
        100 * float(mean_over_classes(average_precision(
            torch.from_numpy(np.concatenate(rows)), targets)))
        for rows in scores)
