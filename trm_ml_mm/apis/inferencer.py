"""Predict the labels of new images."""
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from mmpretrain.apis import BaseInferencer
from mmpretrain.registry import TRANSFORMS
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trm_ml_mm.datasets.base import MissingImage, UnreadableImage
from trm_ml_mm.datasets.images import (
    ImageLike,
    find_images,
    name_of,
    read_image,
)
from trm_ml_mm.engine import find_class, read_calibration
from trm_ml_mm.engine.tta import scaled
from trm_ml_mm.models.feature_maps import map_size
from trm_ml_mm.models.tta import view_logits
from trm_ml_mm.visualization.overlays import draw_prediction
from trm_ml_mm.visualization.regions import box_of, peak_of, seen_area

from .model import LoadedModel, load_model

THRESHOLD = 0.5  # of a model that was not calibrated
OVERLAP = 0.25  # of neighbouring tiles, relative to their side


class MultiLabelInferencer(BaseInferencer):
    """Predict every label of new images, and where each was seen.

    On MMPretrain's inferencers, whose own for images takes the class with the
    highest score alone::

        predict = MultiLabelInferencer('epoch_10.pth')
        for result in predict('photos/', batch_size=16):
            print(result['image'], result['present'])

    Args:
        checkpoint: File of a training run, or a loaded model.
        config: See :func:`~trm_ml_mm.apis.load_model`.
        weights: See :func:`~trm_ml_mm.apis.load_model`.
        device: Default: the GPU, if there is one.
        tta: Test-time augmentation: average over each image and its mirror
            image, at these scales of the test size (``(1, )`` for that size
            alone). None: one view.
        tiles: Cut large images into this many tiles a side too; see
            :func:`tile_views`.
        only: Names of the classes to give. None: all.

    Raises:
        ValueError, FileNotFoundError: See :func:`~trm_ml_mm.apis.load_model`.
        ValueError: If there is no such class.
    """

    def __init__(self,
                 checkpoint: Union[str, Path, LoadedModel],
                 config: Union[None, str, Config] = None,
                 device: Optional[str] = None,
                 weights: Optional[str] = None,
                 tta: Optional[Sequence[float]] = None,
                 tiles: int = 1,
                 only: Optional[Sequence[str]] = None):
        if tta is not None and (not tta or any(scale <= 0 for scale in tta)):
            raise ValueError(f'tta takes positive scales, got {list(tta)}.')
        if tiles < 1:
            raise ValueError(f'tiles must be at least 1, got {tiles}.')
        if not isinstance(checkpoint, LoadedModel):
            checkpoint = load_model(checkpoint, config, weights=weights)
        self.loaded = checkpoint
        self.classes = checkpoint.description.classes
        self.wanted = range(len(self.classes)) if only is None else sorted(
            {find_class(self.classes, name) for name in only})
        self.steps = checkpoint.description.pipeline
        self.tta, self.tiles = tta, tiles
        self.calibration = read_calibration(
            checkpoint.meta, 'the checkpoint', self.classes)
        self.thresholds = [THRESHOLD] * len(self.classes) if (
            self.calibration is None) else self.calibration.cuts
        if device is None:
            device = 'cuda' if torch.cuda.is_available() else 'cpu'
        super().__init__(checkpoint.model, device=device)

    def __call__(self,
                 inputs: Union[ImageLike, Sequence[ImageLike]],
                 return_datasamples: bool = False,
                 batch_size: int = 32,
                 maps: bool = False,
                 show_dir: Optional[str] = None,
                 skip_unreadable: bool = False) -> List[dict]:
        """Predict images.

        Args:
            inputs: See :func:`~trm_ml_mm.datasets.images.find_images`. Arrays
                are in BGR, as OpenCV and MMCV read them.
            return_datasamples: Give MMPretrain's ``DataSample`` instead.
            batch_size: Images that the model sees at once.
            maps: Also say where each label was seen.
            show_dir: Draw each image, and where its labels are, into this
                folder.
            skip_unreadable: An image that cannot be read gets a result with
                an ``error``. False: it ends the call.

        Returns:
            For each image a dict: ``image`` (its path, or its number), ``size``
            (width, height), ``present`` (names), ``labels``. Labels are
            sorted by score; each has ``name``, ``score`` (a probability, if
            the model was calibrated), ``threshold`` (None: the label is
            never given) and ``present``; with ``maps`` also ``map`` ``(h,
            w)``, the ``peak`` ``[x, y]`` and the ``box`` ``[left, top, right,
            bottom]`` around it, in pixels of the image.

        Raises:
            FileNotFoundError, ValueError: If there is no image, or one cannot
                be read.
        """
        return list(self.stream(inputs, return_datasamples, batch_size, maps,
                                show_dir, skip_unreadable))

    def stream(self, inputs, return_datasamples: bool = False,
               batch_size: int = 32, maps: bool = False,
               show_dir: Optional[str] = None, skip_unreadable: bool = False,
               workers: int = 0) -> Iterator[dict]:
        """As :meth:`__call__`, one result after the other.

        Args:
            workers: Processes that read images.
        """
        images = find_images(inputs)
        draws = show_dir is not None
        numbers = PictureNames(show_dir) if draws else None
        for batch in self.preprocess(images, batch_size, workers=workers):
            readable = [entry for entry in batch if 'error' not in entry]
            found = iter(self.forward(readable, maps or draws)
                         if readable else ())
            for entry in batch:
                if 'error' in entry:
                    if not skip_unreadable:
                        raise entry['error']
                    yield dict(image=entry['name'],
                               error=str(entry['error']))
                    continue
                sample, saliency = next(found)
                result = self.result(entry, sample, saliency)
                if draws:
                    result['picture'] = numbers.path(entry['name'])
                    draw_prediction(read_image(entry['image'])[..., ::-1],
                                    result, result['picture'])
                    if not maps:
                        for label in result['labels']:
                            del label['map'], label['peak'], label['box']
                yield sample if return_datasamples else result

    def _init_pipeline(self, cfg: Config) -> List[Compose]:
        """One pipeline for each view of an image."""
        init_default_scope('mmpretrain')
        sizes = [self.steps]
        if self.tta is not None:
            sizes = [[dict(step, scale=scaled(step['scale'], scale))
                      if step['type'] == 'Resize' and step.get('scale')
                      else step for step in self.steps] for scale in self.tta]
        flips = (False, ) if self.tta is None else (False, True)
        return [Compose([TRANSFORMS.build(step) for step in (
            *steps, *([dict(type='RandomFlip', prob=1.)] if flip else ()),
            dict(type='PackInputs', meta_keys=()))])
                for steps in sizes for flip in flips]

    def preprocess(self, inputs: List[ImageLike], batch_size: int = 1,
                   workers: int = 0) -> Iterator[List[dict]]:
        """Batches of images, each with the inputs of all its views."""
        return iter(DataLoader(
            _Images(inputs, self.pipeline, self.tiles), batch_size,
            num_workers=workers, collate_fn=list))

    @torch.no_grad()
    def forward(self, batch: List[dict], maps: bool = False) -> list:
        """A ``(DataSample, saliency)`` for each image; saliency is ``(C, h,
        w)``, or None without ``maps``."""
        whole = len(self.pipeline)
        logits, saliency = [], None
        for view in range(len(batch[0]['views'])):
            data = self.model.data_preprocessor(pseudo_collate(
                [entry['views'][view] for entry in batch]))
            feats = self.model.extract_feat(data['inputs'])
            samples = self.model.head.predict(feats, data['data_samples'])
            logits.append(torch.stack([view_logits(s) for s in samples]))
            if view == 0 and maps:
                saliency = self.model.head.saliency(feats)
                saliency = saliency.unflatten(
                    2, map_size(feats, saliency.shape[2])).cpu().numpy()
        merged = merge_views(torch.stack(logits), whole).cpu()
        for sample, row in zip(samples, merged):
            sample.set_pred_score(row.sigmoid())
            sample.set_field(row, 'pred_logit', dtype=torch.Tensor)
        return list(zip(samples, saliency if maps else [None] * len(samples)))

    def result(self, entry: dict, sample, saliency: Optional[np.ndarray]
               ) -> dict:
        """The prediction of one image, as plain data (maps are arrays)."""
        logits = sample.pred_logit.numpy()
        scores, present = self.judge(logits)
        width, height = entry['size']
        area = seen_area(self.steps, width, height)
        labels = []
        for c in np.lexsort((-logits, -scores)):  # scores may be equal
            if c not in self.wanted:
                continue
            label = dict(name=self.classes[c], score=float(scores[c]),
                         threshold=self.thresholds[c],
                         present=bool(present[c]))
            if saliency is not None:
                label.update(peak=peak_of(saliency[c], area),
                             box=box_of(saliency[c], area), map=saliency[c])
            labels.append(label)
        chosen = [label['name'] for label in labels if label['present']]
        sample.set_pred_label([self.classes.index(name) for name in chosen])
        return dict(image=entry['name'], size=(width, height), present=chosen,
                    labels=labels)

    def judge(self, logits: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Scores and presence, ``(..., C)`` both: of a calibrated model, its
        probabilities and thresholds; else the sigmoid, and :data:`THRESHOLD`.
        """
        if self.calibration is None:
            scores = torch.from_numpy(logits).sigmoid().numpy()
            return scores, scores >= THRESHOLD
        return (self.calibration.probabilities.probabilities(logits),
                self.calibration.predict(logits))


class PictureNames:
    """A file for each picture: images of the same name in two folders do not
    replace each other."""

    def __init__(self, folder: str):
        self.folder, self.count = Path(folder), {}
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> str:
        stem = Path(name).stem or 'image'
        count = self.count[stem] = self.count.get(stem, 0) + 1
        return str(self.folder / (
            f'{stem}.jpg' if count == 1 else f'{stem}_{count}.jpg'))


class _Images(Dataset):

    def __init__(self, images, pipelines, tiles):
        self.images, self.pipelines, self.tiles = images, pipelines, tiles

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        image = self.images[index]
        entry = dict(name=name_of(image, index), image=image)
        try:
            pixels = read_image(image)
        except (MissingImage, UnreadableImage) as error:
            return dict(entry, error=error)
        height, width = pixels.shape[:2]
        views = [pipeline(_loaded(pixels)) for pipeline in self.pipelines]
        for tile in tile_views(pixels, self.tiles):
            views.append(self.pipelines[0](_loaded(tile)))
        return dict(entry, size=(width, height), views=views)


def _loaded(pixels: np.ndarray) -> Dict:
    """What a pipeline gets after an image was loaded."""
    return dict(img=pixels.copy(), img_shape=pixels.shape[:2],
                ori_shape=pixels.shape[:2])


def tile_views(pixels: np.ndarray, tiles: int) -> List[np.ndarray]:
    """Cut an image into ``tiles * tiles`` parts, which overlap by a quarter of
    their sides; none for 1.

    Args:
        pixels: ``(H, W, 3)``.
        tiles: A side.
    """
    if tiles == 1:
        return []
    bounds = [_bounds(side, tiles) for side in pixels.shape[:2]]
    return [pixels[top:bottom, left:right] for top, bottom in bounds[0]
            for left, right in bounds[1]]


def _bounds(side: int, tiles: int) -> List[Tuple[int, int]]:
    length = max(1, round(side / (tiles - (tiles - 1) * OVERLAP)))
    starts = np.linspace(0, side - length, tiles).round().astype(int)
    return [(int(start), int(start) + length) for start in starts]


def merge_views(logits: Tensor, whole: int) -> Tensor:
    """Logits of an image from those of its views.

    The mean over the views of the whole image. With tiles, the mean of that
    and of the highest logit of any tile: an object is in some tiles only.
    (This rule is ours.)

    Args:
        logits: ``(V, B, C)``.
        whole: How many views, the first ones, show the whole image.
    """
    merged = logits[:whole].mean(0)
    if len(logits) > whole:
        merged = (merged + logits[whole:].amax(0)) / 2
    return merged


