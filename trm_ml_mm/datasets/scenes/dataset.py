"""The built-in data set: rendered scenes with named, correlated categories.

With it the whole method runs on a fresh machine, without a GPU or a download,
and methods can be compared within minutes.
"""
from typing import Dict, List

import numpy as np
from mmcv.transforms import BaseTransform

from trm_ml_mm.labels.names import scene_classes
from trm_ml_mm.registry import DATASETS, TRANSFORMS

from ..base import MultiLabelDataset, boxes_by_class
from .world import SPLITS, draw, scene_boxes, scene_labels


@DATASETS.register_module()
class Scenes(MultiLabelDataset):
    """Rendered multi-object scenes with 30 named categories.

    Args:
        split: 'train', 'val' or 'test'; disjoint by construction.
        num_images: Number of scenes. Scene ``i`` is the same for any number.
        scene_set: Which world: categories, frequencies and co-occurrence.
        size: Side of a scene in pixels.
        in_memory: Render all scenes at the start, 27 kB each, instead of again
            in every epoch. Nothing is rendered if no pipeline needs it.
        **kwargs: See :class:`~trm_ml_mm.datasets.MultiLabelDataset`.

    A category is present if at least 40% of one of its objects is visible,
    else absent. The pipeline begins with
    ``dict(type='trm_ml_mm.RenderScene')``.

    Raises:
        ValueError: If ``split`` is unknown or ``num_images`` is not positive.
    """

    def __init__(self,
                 split: str = 'train',
                 num_images: int = 3000,
                 scene_set: int = 0,
                 size: int = 96,
                 in_memory: bool = True,
                 **kwargs):
        if split not in SPLITS:
            raise ValueError(f'Scenes has the splits {sorted(SPLITS)}, '
                             f'got split={split!r}.')
        if num_images < 1:
            raise ValueError(f'num_images must be at least 1, '
                             f'got {num_images}.')
        self.split = split
        self.num_images = num_images
        self.scene_set = scene_set
        self.size = size
        self.in_memory = in_memory
        super().__init__(
            ann_file='', metainfo=dict(classes=scene_classes(scene_set)),
            **kwargs)

    def load_data_list(self) -> List[dict]:
        where = self.scene_set, self.split
        data = [
            dict(
                img_path=f'scenes/{self.scene_set}/{self.split}/{index}.png',
                scene=(*where, index, self.size),
                gt_label=list(labels))
            for index, labels in enumerate(
                scene_labels(*where, self.num_images, self.size))
        ]
        if self.in_memory and any(
                isinstance(t, RenderScene) for t in self.pipeline.transforms):
            for entry in data:
                entry['img'] = draw(entry['scene'])
        return data

    def boxes(self, idx: int) -> Dict[int, np.ndarray]:
        """See :meth:`MultiLabelDataset.boxes`."""
        names = {name: c for c, name in enumerate(self.class_names)}
        where = self.scene_set, self.split, idx, self.size
        return boxes_by_class(
            [(names[name], box) for name, box in scene_boxes(*where)
             if name in names], self.size, self.size)


@TRANSFORMS.register_module()
class RenderScene(BaseTransform):
    """Render the scene that :class:`Scenes` composed, unless it did so itself.

    Required keys: ``scene``, and ``img`` if it is rendered. Added keys:
    ``img`` (H, W, 3) uint8 in BGR, the order of MMCV's image loader,
    ``img_shape`` and ``ori_shape``.
    """

    def transform(self, results: dict) -> dict:
        if 'img' not in results:
            results['img'] = draw(results['scene'])
        image = results['img'] = np.ascontiguousarray(results['img'])
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results
