"""Pictures of a few training images, as the training goes on."""
from itertools import islice
from pathlib import Path
from typing import List

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.hooks import Hook
from mmpretrain.registry import TRANSFORMS

from trm_ml_mm.datasets.base import resolve_dataset, sample_key
from trm_ml_mm.datasets.crops import load_object
from trm_ml_mm.labels import PRESENT, UNKNOWN
from trm_ml_mm.models.feature_maps import map_size
from trm_ml_mm.models.heads.base import has_maps
from trm_ml_mm.registry import HOOKS
from trm_ml_mm.utils.checks import check_positive
from trm_ml_mm.visualization.overlays import draw_prediction
from trm_ml_mm.visualization.regions import box_of, peak_of, seen_area

from .screen import bare

FOLDER = 'watched'  # in the work dir


@HOOKS.register_module()
class WatchHook(Hook):
    """After each epoch, draw where the model sees the labels of a few training
    images: those that are known to be present, and those that it was given as
    pseudo-labels in that epoch.

    The images are the first ones that have a known positive. Pictures go to
    ``watched/<image>_epoch_<n>.jpg`` in the work dir, and to the visualizer's
    backends, such as TensorBoard. Of several ranks, the main one draws; it
    knows the pseudo-labels of its own share of the images.

    Args:
        images: How many.
        interval: Epochs between two pictures.

    Raises:
        ValueError: If a number is not positive, or if the head looks at whole
            images, or the training has no images but cached features.
    """

    priority = 'LOW'

    def __init__(self, images: int = 4, interval: int = 1):
        check_positive(images=images, interval=interval)
        self.images, self.interval = images, interval

    def before_train(self, runner) -> None:
        dataset = runner.train_dataloader.dataset
        if runner.cfg.get('feature_cache'):
            raise ValueError('watch draws images, and feature_cache has '
                             'features: train without one of them.')
        head = getattr(bare(runner), 'head', None)
        if not has_maps(head):
            raise ValueError(
                f'watch draws where a head looks, and {type(head).__name__} '
                'looks at the whole image: train without watch.')
        self.chosen = list(islice(
            (i for i in range(len(dataset))
             if PRESENT in dataset.get_data_info(i)['gt_score']),
            self.images))
        self.known = np.stack([dataset.get_data_info(i)['gt_score']
                               for i in self.chosen])
        self.keys = [sample_key(dataset.get_data_info(i))
                     for i in self.chosen]
        self.pseudo = np.full(self.known.shape, UNKNOWN, np.int8)
        self.classes = dataset.metainfo['classes']
        steps = [step for step in steps_of_validation(runner.cfg)
                 if not step['type'].endswith(('CropBox', 'PackInputs'))]
        self.pipeline = Compose([TRANSFORMS.build(step) for step in (
            *steps, dict(type='PackInputs', meta_keys=()))])
        self.steps = [dict(step, type=step['type'].split('.')[-1])
                      for step in steps]
        prototypes = getattr(head, 'prototypes', None)
        self.listener = self.latest = None
        if prototypes is not None:
            self.listener = prototypes.register_forward_hook(
                lambda module, inputs, pseudo: setattr(self, 'latest', pseudo))

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None) -> None:
        if self.latest is None:
            return
        for row, sample in enumerate(data_batch['data_samples']):
            if sample_key(sample) in self.keys:
                self.pseudo[self.keys.index(sample_key(sample))] = (
                    self.latest[row].cpu().numpy())

    def after_train_epoch(self, runner) -> None:
        if runner.rank == 0 and (runner.epoch + 1) % self.interval == 0:
            self.draw(runner)

    def after_train(self, runner) -> None:
        if self.listener is not None:
            self.listener.remove()

    @torch.no_grad()
    def draw(self, runner) -> None:
        """Draw every image as the model sees it now."""
        model, folder = bare(runner), Path(runner.work_dir, FOLDER)
        folder.mkdir(exist_ok=True)
        was_training = model.training
        model.eval()
        dataset = runner.train_dataloader.dataset
        for number, (index, (path, _)) in enumerate(zip(self.chosen,
                                                        self.keys)):
            pixels = load_object(
                resolve_dataset(dataset, index).pipeline.transforms,
                dataset.get_data_info(index))['img']
            data = model.data_preprocessor(pseudo_collate([self.pipeline(dict(
                img=pixels.copy(), img_shape=pixels.shape[:2],
                ori_shape=pixels.shape[:2]))]))
            feats = model.extract_feat(data['inputs'])
            scores = model.head(feats)[0].sigmoid().tolist()
            maps = model.head.saliency(feats)
            maps = maps.unflatten(2, map_size(feats, maps.shape[2]))[0]
            labels = self.labels_of(number, scores, maps.cpu().numpy(),
                                    pixels.shape[:2])
            out = folder / (f'{number}_{Path(path).stem}_epoch_'
                            f'{runner.epoch + 1}.jpg')
            draw_prediction(pixels[..., ::-1], dict(labels=labels), out)
            runner.visualizer.add_image(
                f'{FOLDER}_{number}', cv2.imread(str(out))[..., ::-1],
                runner.epoch + 1)
        model.train(was_training)

    def labels_of(self, number: int, scores: List[float], maps: np.ndarray,
                  size) -> List[dict]:
        """The labels to draw of an image, highest score first."""
        area = seen_area(self.steps, size[1], size[0])
        found = []
        for c in np.argsort(scores)[::-1].tolist():
            known = self.known[number, c] == PRESENT
            guessed = self.pseudo[number, c] == PRESENT
            if known or guessed:
                found.append(dict(
                    name=self.classes[c] + ('' if known else ' (pseudo)'),
                    score=scores[c], present=True, map=maps[c],
                    peak=peak_of(maps[c], area), box=box_of(maps[c], area)))
        return found


def steps_of_validation(cfg) -> List[dict]:
    """The pipeline of the validation, without what loads the image."""
    for split in ('val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader:
            dataset = loader.dataset
            while 'pipeline' not in dataset and 'dataset' in dataset:
                dataset = dataset.dataset
            return list(dataset.get('pipeline') or ())[1:]
    return []
