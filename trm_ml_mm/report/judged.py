"""What a trained model says of its test set, image by image."""
import base64
import copy
import tempfile
from pathlib import Path
from typing import List, NamedTuple

import cv2
import numpy as np
import torch

from trm_ml_mm.apis import MultiLabelInferencer, load_model
from trm_ml_mm.apis.calibrate import Track, logits_of_config, matching_columns
from trm_ml_mm.datasets import labels_of
from trm_ml_mm.engine import build_dataset, fill_classes, load_config
from trm_ml_mm.engine.checkpoint import latest_checkpoint
from trm_ml_mm.evaluation import average_precision
from trm_ml_mm.features import use_images
from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN, summarize_labels
from trm_ml_mm.models.heads.base import has_maps
from trm_ml_mm.utils.configs import nested_dicts
from trm_ml_mm.visualization.overlays import draw_prediction

from .run import Run

PAIRS = 15  # of classes that are confused
RELATED = 10  # pairs of classes with a relation, of each sign


class Picture(NamedTuple):
    """An image of the test set with what the model says of it."""

    data: str  # JPEG, base64
    right: List[str]
    missed: List[str]
    wrong: List[str]


class ClassFigures(NamedTuple):
    """Of one class."""

    name: str
    ap: float  # percent; NaN without a positive
    positives: int  # of the test set
    known: int  # labels of the training set
    known_positives: int
    threshold: float


class Confusion(NamedTuple):
    """A class that is seen where another one is."""

    seen: str
    there: str
    # Mean score of the one where it is absent: with and without the other.
    beside: float
    alone: float


class Relation(NamedTuple):
    """What the presence of a class says of another one, as it was learned."""

    if_present: str
    then: str
    weight: float
    logit: float  # what the presence of the one adds to that of the other
    # Training images that are known to have the one and whose label of the
    # other is known; how many of them have it.
    together: int
    images: int
    # Percent of all images with a known label that have it; NaN: there is none.
    usual: float


class Judged(NamedTuple):
    """A model, and its test set of N images and C classes."""

    scores: np.ndarray  # (N, C)
    labels: np.ndarray  # (N, C) in {PRESENT, ABSENT, UNKNOWN}
    classes: List[ClassFigures]
    best: List[Picture]
    worst: List[Picture]
    confused: List[Confusion]
    related: List[Relation]  # highest weight first


def judge(run: Run, pictures: int = 6,
          track: Track = lambda batches, count: batches) -> Judged:
    """Run the last checkpoint of a training over its test set.

    Args:
        run: The training.
        pictures: How many of the best, and of the worst, images to draw.
        track: Shows progress.

    Raises:
        FileNotFoundError: If there is no checkpoint, or no CLIP.
    """
    checkpoint = latest_checkpoint(run.folder)
    if checkpoint is None:
        raise FileNotFoundError(f'{run.folder} has no checkpoint: train again '
                                'with one, or leave the images out.')
    cfg = load_config(str(run.config))
    use_images(cfg)
    loaded = load_model(checkpoint, cfg)
    predict = MultiLabelInferencer(loaded)
    found = logits_of_config(loaded, cfg, 'test', track=track)
    scores, present = predict.judge(found.logits)
    names = predict.classes
    statistics = getattr(loaded.model.head, 'label_statistics', None)
    known = positive = [0] * len(names)
    if statistics is not None:
        positive = statistics.positives.tolist()
        known = (statistics.negatives + statistics.positives).tolist()
    ap = average_precision(*map(torch.from_numpy, (found.logits,
                                                   found.labels)))
    classes = [ClassFigures(*row) for row in zip(
        names, (100 * ap).tolist(),
        summarize_labels(found.labels).positive.tolist(), known, positive,
        predict.thresholds)]
    order = ranked(scores, found.labels)
    chosen = order[:pictures], order[::-1][:pictures]
    return Judged(scores, found.labels, classes, *(
        draw(predict, cfg, images, present, found.labels)
        for images in chosen), confusions(names, scores, found.labels),
        relations(names, loaded.model.head, cfg))


def ranked(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Images with a known positive, best judged first: by their mean log loss
    over known labels."""
    likely = np.clip(np.where(labels == PRESENT, scores, 1 - scores), 1e-6, 1)
    known = labels != UNKNOWN
    loss = -(np.log(likely) * known).sum(1) / np.maximum(known.sum(1), 1)
    usable = np.flatnonzero((labels == PRESENT).any(1))
    return usable[np.argsort(loss[usable], kind='stable')]


def draw(predict: MultiLabelInferencer, cfg, images: np.ndarray,
         present: np.ndarray, labels: np.ndarray) -> List[Picture]:
    """Pictures of images of the test set; without maps if the head has
    none."""
    fill_classes(cfg, 'test', predict.classes)
    dataset = build_dataset(cfg, 'test')
    matching_columns(dataset.metainfo['classes'], predict.classes, 'test set')
    pictures = []
    for i in images.tolist():
        pixels = dataset[i]['inputs'].permute(1, 2, 0).numpy()  # BGR
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, 'image.jpg')
            if has_maps(predict.model.head):
                result, = predict(pixels, maps=True)
                draw_prediction(pixels[..., ::-1], result, path)
            else:  # such a head looks at the whole image
                cv2.imwrite(str(path), pixels)
            data = base64.b64encode(path.read_bytes()).decode()

        def chosen(where, row=i):
            return [predict.classes[c] for c in np.flatnonzero(where[row])]

        pictures.append(Picture(data, *map(chosen, (
            present & (labels == PRESENT), ~present & (labels == PRESENT),
            present & (labels == ABSENT)))))
    return pictures


def confusions(names, scores: np.ndarray, labels: np.ndarray
               ) -> List[Confusion]:
    """Pairs of classes, the worst first: how much the score of a class that is
    absent rises where the other one is present."""
    absent = (labels == ABSENT).astype(np.float64)
    there = [(labels == value).astype(np.float64)
             for value in (PRESENT, ABSENT)]
    sums = [(scores * absent).T @ t for t in there]
    counts = [absent.T @ t for t in there]
    with np.errstate(invalid='ignore'):
        beside, alone = (s / c for s, c in zip(sums, counts))
    rise = np.where(counts[0] >= 5, beside - alone, -np.inf)
    np.fill_diagonal(rise, -np.inf)
    rise = np.nan_to_num(rise, nan=-np.inf)
    order = np.argsort(-rise, axis=None)[:PAIRS]
    pairs = np.stack(np.unravel_index(order, rise.shape), 1).tolist()
    return [Confusion(names[a], names[b], beside[a, b], alone[a, b])
            for a, b in pairs if rise[a, b] > 0]


def relations(names, head, cfg) -> List[Relation]:
    """The strongest relations of a head, beside what the known labels of its
    training set say; none if it has no relations, or those of low rank: there
    are too many pairs to sort."""
    learned = getattr(head, 'relations', None)
    if learned is None or not learned.scale or learned.rank is not None:
        return []
    return strongest(names, learned.weight.detach().cpu().numpy(),
                     learned.scale, training_labels(cfg, names))


def training_labels(cfg, names) -> np.ndarray:
    """What training saw, ``(N, C)`` in {PRESENT, ABSENT, UNKNOWN}; no image
    if the training set is no longer where it was."""
    cfg = copy.deepcopy(cfg)
    for options in nested_dicts(cfg.train_dataloader):
        if 'pipeline' in options:
            options['pipeline'] = []  # labels need no image
    try:
        dataset = build_dataset(cfg, 'train')
    except FileNotFoundError:
        return np.empty((0, len(names)), np.int8)
    columns = matching_columns(dataset.metainfo['classes'], names,
                               'training set')
    return labels_of(dataset)[:, columns]


def strongest(names, weight: np.ndarray, scale: float, labels: np.ndarray
              ) -> List[Relation]:
    """The strongest relations of each sign, the highest weight first.

    Args:
        names: C classes.
        weight: ``(C, C)``: what the presence of row k says of class c. The
            diagonal does not count.
        scale: Factor of the weight in a logit.
        labels: ``(N, C)`` in {PRESENT, ABSENT, UNKNOWN}, of the training set.
    """
    present = (labels == PRESENT).astype(np.float32)
    known = (labels != UNKNOWN).astype(np.float32)
    together, images = present.T @ present, present.T @ known
    with np.errstate(invalid='ignore'):
        usual = 100 * present.sum(0) / known.sum(0)
    pairs = [divmod(flat, len(names))
             for flat in np.argsort(-weight, axis=None, kind='stable').tolist()]
    pairs = [(k, c) for k, c in pairs if k != c]
    chosen = [pair for pair in pairs[:RELATED] if weight[pair] > 0]
    chosen += [pair for pair in pairs[-RELATED:] if weight[pair] < 0]
    return [Relation(names[k], names[c], float(weight[k, c]),
                     float(scale * weight[k, c]), int(together[k, c]),
                     int(images[k, c]), float(usual[c])) for k, c in chosen]
