"""The built-in data set: rendered scenes with named, correlated categories.

It exists so that the whole method runs on a fresh machine, without a GPU or a
download, and so that methods can be compared in minutes. A *scene set* is one
world of it: 30 of the 72 (look, shape) names are its categories, the other 42
appear as distractors that share a look or a shape with a category. Which ones,
how frequent each is (long-tailed) and which come together (six topics) are
drawn from the number of the scene set.

The scenes are seen in a slightly other light than the pictures that the mini
CLIP was pretrained on (:data:`HUE_TURN`): as between the web and a data set,
there is a gap, which a method has to learn its way over.
"""
from functools import cache, lru_cache
from typing import List, NamedTuple, Tuple

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from trm_ml_mm.registry import DATASETS, TRANSFORMS

from .base import MultiLabelDataset
from .rendering import (
    LOOKS,
    SHAPES,
    SceneObject,
    object_mask,
    place_objects,
    render_scene,
    visible_fractions,
)

NUM_CATEGORIES = 30
NUM_TOPICS = 6
SPLITS = {'train': 0, 'val': 1, 'test': 2}
MIN_VISIBLE = 0.4
HUE_TURN = 8  # degrees
_WORLD_STREAM, _SCENE_STREAM = 101, 202


class World(NamedTuple):
    """What one scene set is made of."""

    categories: Tuple[Tuple[str, str], ...]  # (look, shape) of each category
    distractors: Tuple[Tuple[str, str], ...]
    topic_weights: np.ndarray  # (NUM_TOPICS, C), rows sum to 1

    @property
    def names(self) -> Tuple[str, ...]:
        return tuple(f'{look} {shape}' for look, shape in self.categories)


@cache
def make_world(scene_set: int) -> World:
    """Categories, frequencies and co-occurrence of one scene set."""
    rng = np.random.RandomState([_WORLD_STREAM, scene_set])
    names = [(look, shape) for look in LOOKS for shape in SHAPES]
    order = rng.permutation(len(names))
    categories = tuple(names[i] for i in order[:NUM_CATEGORIES])
    distractors = tuple(names[i] for i in order[NUM_CATEGORIES:])
    # Zipf-like frequencies; each class is at home in one topic, or two.
    frequency = 1. / (1.5 + np.arange(NUM_CATEGORIES))**0.95
    at_home = np.full((NUM_TOPICS, NUM_CATEGORIES), 0.25)
    homes = np.arange(NUM_CATEGORIES) % NUM_TOPICS
    at_home[homes, np.arange(NUM_CATEGORIES)] = 4.
    second = rng.randint(NUM_TOPICS, size=NUM_CATEGORIES)
    twice = rng.uniform(size=NUM_CATEGORIES) < 0.3
    at_home[second[twice], np.arange(NUM_CATEGORIES)[twice]] = 4.
    weights = frequency * at_home
    return World(categories, distractors,
                 weights / weights.sum(1, keepdims=True))


def compose_scene(scene_set: int, split: str, index: int, size: int
                  ) -> Tuple[np.random.RandomState, List[SceneObject]]:
    """Objects of one scene, and the random state that goes on to draw it.

    The state is seeded by (scene set, split, index) alone: a scene depends on
    no other scene, worker or epoch, and no two splits share one.
    """
    world = make_world(scene_set)
    rng = np.random.RandomState(
        [_SCENE_STREAM, scene_set, SPLITS[split], index])
    topic = rng.randint(NUM_TOPICS)
    count = 1 + rng.binomial(5, 0.45)
    drawn = rng.choice(
        NUM_CATEGORIES, size=count, p=world.topic_weights[topic])
    chosen = [world.categories[c] for c in drawn]
    for _ in range(1 + rng.binomial(4, 0.45)):
        look, shape = chosen[rng.randint(len(chosen))]
        alike = [d for d in world.distractors if d[0] == look or d[1] == shape]
        if alike:
            chosen.append(alike[rng.randint(len(alike))])
    chosen = [chosen[i] for i in rng.permutation(len(chosen))]
    return rng, place_objects(rng, chosen, size)


@lru_cache(maxsize=8)
def scene_labels(scene_set: int, split: str, count: int,
                 size: int) -> Tuple[Tuple[int, ...], ...]:
    """Categories present in the first ``count`` scenes of a split. Kept, as
    a run asks for them more than once."""
    lookup = {
        pair: c for c, pair in enumerate(make_world(scene_set).categories)
    }
    rows = []
    for index in range(count):
        _, objects = compose_scene(scene_set, split, index, size)
        seen = visible_fractions([object_mask(o, size) for o in objects])
        rows.append(tuple(sorted({
            lookup[o.look, o.shape] for o, share in zip(objects, seen)
            if share >= MIN_VISIBLE and (o.look, o.shape) in lookup
        })))
    return tuple(rows)


def draw(scene: Tuple[int, str, int, int]) -> np.ndarray:
    """The picture of (scene set, split, index, size), in BGR."""
    *_, size = scene
    rng, objects = compose_scene(*scene)
    hsv = cv2.cvtColor(render_scene(rng, objects, size), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + HUE_TURN // 2) % 180  # OpenCV's half degrees
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


@DATASETS.register_module()
class Scenes(MultiLabelDataset):
    """Rendered multi-object scenes with 30 named categories.

    Args:
        split: 'train', 'val' or 'test'; disjoint by construction.
        num_images: Number of scenes. Scene ``i`` is the same for any number.
        scene_set: Which world: categories, frequencies and co-occurrence.
        size: Side of a scene in pixels.
        in_memory: Draw all scenes at the start, 27 kB each, instead of anew in
            every epoch. None is drawn where no pipeline asks for it.
        **kwargs: Of :class:`mmengine.dataset.BaseDataset` (``pipeline``, ...).

    A category is present where at least 40% of one of its objects can be
    seen, absent otherwise. The pipeline begins with
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
        world = make_world(scene_set)
        super().__init__(
            ann_file='', metainfo=dict(classes=world.names), **kwargs)

    def load_data_list(self) -> List[dict]:
        where = self.scene_set, self.split
        data = [
            dict(
                img_path=f'scenes/{self.scene_set}/{self.split}/{index}',
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


@TRANSFORMS.register_module()
class RenderScene(BaseTransform):
    """Draw the scene that :class:`Scenes` composed, unless it did so itself.

    Required keys: ``scene``, and ``img`` where it is drawn. Added keys:
    ``img`` (H, W, 3) uint8 in BGR, the order of MMCV's image loader,
    ``img_shape`` and ``ori_shape``.
    """

    def transform(self, results: dict) -> dict:
        if 'img' not in results:
            results['img'] = draw(results['scene'])
        image = results['img'] = np.ascontiguousarray(results['img'])
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results
