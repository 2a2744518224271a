"""What is in a built-in scene: categories, how often, and what with what.

A *scene set* is one world. 30 of the 72 (look, shape) names are its
categories. The other 42 appear as distractors that share a look or a shape
with a category. The number of the scene set decides which names these are, how
frequent each category is (long-tailed), and which occur together (six topics).

The mini CLIP was pretrained on pictures in a slightly different light
(:data:`HUE_TURN`). A method has to bridge that gap, as it does between web
images and a real data set.
"""
from functools import cache, lru_cache
from typing import List, NamedTuple, Tuple

import cv2
import numpy as np

from trm_ml_mm.labels.names import (
    NUM_SCENE_CATEGORIES,
    scene_names,
    scene_world_rng,
)

from .rendering import (
    SceneObject,
    object_mask,
    place_objects,
    render_scene,
    visible_fractions,
)

NUM_TOPICS = 6
SPLITS = {'train': 0, 'val': 1, 'test': 2}
MIN_VISIBLE = 0.4
HUE_TURN = 8  # degrees
_SCENE_STREAM = 202


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
    names = scene_names(scene_set)
    rng = scene_world_rng(scene_set)
    rng.permutation(len(names))  # drew the names; what follows comes after it
    categories = names[:NUM_SCENE_CATEGORIES]
    distractors = names[NUM_SCENE_CATEGORIES:]
    # Zipf-like frequencies; each class belongs to one topic, or two.
    frequency = 1. / (1.5 + np.arange(NUM_SCENE_CATEGORIES))**0.95
    at_home = np.full((NUM_TOPICS, NUM_SCENE_CATEGORIES), 0.25)
    homes = np.arange(NUM_SCENE_CATEGORIES) % NUM_TOPICS
    at_home[homes, np.arange(NUM_SCENE_CATEGORIES)] = 4.
    second = rng.randint(NUM_TOPICS, size=NUM_SCENE_CATEGORIES)
    twice = rng.uniform(size=NUM_SCENE_CATEGORIES) < 0.3
    at_home[second[twice], np.arange(NUM_SCENE_CATEGORIES)[twice]] = 4.
    weights = frequency * at_home
    return World(categories, distractors,
                 weights / weights.sum(1, keepdims=True))


def compose_scene(scene_set: int, split: str, index: int, size: int
                  ) -> Tuple[np.random.RandomState, List[SceneObject]]:
    """Objects of one scene, and the random state that renders it next.

    (Scene set, split, index) alone seed the state: a scene does not depend on
    other scenes, workers or epochs, and no scene is in two splits.
    """
    world = make_world(scene_set)
    rng = np.random.RandomState(
        [_SCENE_STREAM, scene_set, SPLITS[split], index])
    topic = rng.randint(NUM_TOPICS)
    count = 1 + rng.binomial(5, 0.45)
    drawn = rng.choice(
        NUM_SCENE_CATEGORIES, size=count, p=world.topic_weights[topic])
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
    """Categories present in the first ``count`` scenes of a split. Cached,
    because a run asks for them more than once."""
    lookup = {
        pair: c for c, pair in enumerate(make_world(scene_set).categories)
    }
    rows = []
    for index in range(count):
        _, objects = compose_scene(scene_set, split, index, size)
        visible = visible_fractions([object_mask(o, size) for o in objects])
        rows.append(tuple(sorted({
            lookup[o.look, o.shape] for o, ratio in zip(objects, visible)
            if ratio >= MIN_VISIBLE and (o.look, o.shape) in lookup
        })))
    return tuple(rows)


def scene_boxes(scene_set: int, split: str, index: int, size: int
                ) -> List[Tuple[str, Tuple[int, int, int, int]]]:
    """Name and box (left, top, right, bottom) in pixels of every object of a
    scene, as if nothing hid it."""
    found = []
    _, objects = compose_scene(scene_set, split, index, size)
    for one in objects:
        rows, columns = np.nonzero(object_mask(one, size) > 127)
        if len(rows):
            found.append((one.name, (columns.min(), rows.min(),
                                     columns.max() + 1, rows.max() + 1)))
    return found


def draw(scene: Tuple[int, str, int, int]) -> np.ndarray:
    """The image of (scene set, split, index, size), in BGR."""
    *_, size = scene
    rng, objects = compose_scene(*scene)
    hsv = cv2.cvtColor(render_scene(rng, objects, size), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + HUE_TURN // 2) % 180  # OpenCV's half degrees
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
