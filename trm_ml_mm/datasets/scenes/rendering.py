"""Render scenes of coloured shapes: pure functions of a seeded random state.

A scene has a textured, cluttered ground with a few objects on it. The name of
an object is one look (a colour or a pattern) and one shape, so that both words
are needed to tell "a red circle" from "a red star" and from "a blue circle".
OpenCV renders everything, from ``numpy.random.RandomState``, which NumPy
guarantees never to change: the same seed gives the same image.
"""
from typing import List, NamedTuple, Sequence, Tuple

import cv2
import numpy as np

COLOURS = {  # RGB of each look; None: a pattern in two greys
    'red': (205, 40, 40),
    'orange': (235, 130, 25),
    'yellow': (225, 210, 50),
    'green': (45, 150, 55),
    'blue': (45, 80, 205),
    'purple': (140, 50, 165),
    'striped': None,
    'checkered': None,
}
_SHIFT = 4  # fractional bits of polygon corners: 1/16 pixel


def _circle(radius=1.0, n=24):
    a = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return radius * np.stack([np.cos(a), np.sin(a)], 1)


def _star(n=5, inner=0.42):
    a = np.pi * np.arange(2 * n) / n - np.pi / 2
    r = np.where(np.arange(2 * n) % 2 == 0, 1.1, 1.1 * inner)
    return np.stack([r * np.cos(a), r * np.sin(a)], 1)


def _heart(n=28):
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    x = 16 * np.sin(t)**3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) -
          np.cos(4 * t))
    return np.stack([x, y - 2.5], 1) / 15.5


def _crescent(n=16):
    outer = np.linspace(0.3 * np.pi, 1.7 * np.pi, n)
    inner = np.linspace(1.62 * np.pi, 0.38 * np.pi, n)
    a = np.stack([np.cos(outer), np.sin(outer)], 1)
    b = 0.78 * np.stack([np.cos(inner), np.sin(inner)], 1) + [0.38, 0.]
    return 1.05 * (np.concatenate([a, b]) + [0.15, 0.])


# Outlines around the origin, of about unit radius and similar area. A shape
# of several outlines is filled by the even-odd rule (a ring has a hole).
OUTLINES = {
    'circle': [_circle(0.95)],
    'square': [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.84],
    'triangle': [np.array([[0, -1.1], [1.05, 0.8], [-1.05, 0.8]])],
    'star': [_star()],
    'cross': [
        np.array([[-.33, -1], [.33, -1], [.33, -.33], [1, -.33], [1, .33],
                  [.33, .33], [.33, 1], [-.33, 1], [-.33, .33], [-1, .33],
                  [-1, -.33], [-.33, -.33]])
    ],
    'ring': [_circle(1.0), _circle(0.52)],
    'heart': [_heart()],
    'crescent': [_crescent()],
    'arrow': [
        np.array([[-1, -.36], [.1, -.36], [.1, -.95], [1.1, 0], [.1, .95],
                  [.1, .36], [-1, .36]])
    ],
}


class SceneObject(NamedTuple):
    """One object: what it is and where it is (pixels, radians)."""

    look: str
    shape: str
    x: float
    y: float
    radius: float
    angle: float

    @property
    def name(self) -> str:
        return f'{self.look} {self.shape}'


def place_objects(rng: np.random.RandomState,
                  names: Sequence[Tuple[str, str]],
                  size: int,
                  radius: Tuple[float, float] = (5., 12.)
                  ) -> List[SceneObject]:
    """Give every (look, shape) a position, a size and an angle in a square
    image.

    Later objects are in front of earlier ones. Out of three random positions,
    the farthest from the earlier objects is taken, so that objects overlap
    sometimes, but not always.
    """
    placed: List[SceneObject] = []
    for look, shape in names:
        r = rng.uniform(*radius)
        tries = rng.uniform(0.7 * r, size - 0.7 * r, (3, 2))
        if placed:
            others = np.array([(o.x, o.y) for o in placed])
            gaps = np.linalg.norm(tries[:, None] - others[None], axis=2)
            x, y = tries[gaps.min(1).argmax()]
        else:
            x, y = tries[0]
        placed.append(
            SceneObject(look, shape, float(x), float(y), float(r),
                        float(rng.uniform(-0.45, 0.45))))
    return placed


def object_mask(obj: SceneObject, size: int) -> np.ndarray:
    """Coverage of one object alone, ``(size, size)`` uint8, 255 = inside."""
    c, s = np.cos(obj.angle), np.sin(obj.angle)
    turn = obj.radius * np.array([[c, s], [-s, c]])
    outlines = [
        np.round((p @ turn + [obj.x, obj.y]) * 2**_SHIFT).astype(np.int32)
        for p in OUTLINES[obj.shape]
    ]
    mask = np.zeros((size, size), np.uint8)
    return cv2.fillPoly(
        mask, outlines, 255, lineType=cv2.LINE_AA, shift=_SHIFT)


def visible_fractions(masks: Sequence[np.ndarray]) -> np.ndarray:
    """Ratio of each object that no later object hides.

    Masks end at the border of the image, so the ratio refers to the area inside
    the image.
    """
    hidden = np.zeros_like(masks[0], dtype=bool) if len(masks) else None
    fractions = np.ones(len(masks))
    for i in range(len(masks) - 1, -1, -1):
        inside = masks[i] > 127
        fractions[i] = (inside & ~hidden).sum() / max(inside.sum(), 1)
        hidden |= inside
    return fractions


def _ground(rng, size):
    """Two octaves of smooth noise in a muted tint, sometimes striped."""
    tint = rng.uniform(60, 190) + rng.uniform(-28, 28, 3)
    image = np.zeros((size, size, 3), np.float32) + tint.astype(np.float32)
    for cells, strength in ((5, 30.), (14, 20.)):
        noise = rng.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        noise = 0.3 * noise + 0.7 * noise[..., :1]
        image += strength * cv2.resize(
            noise, (size, size), interpolation=cv2.INTER_CUBIC)
    if rng.uniform() < 0.35:
        angle, period = rng.uniform(0, np.pi), rng.uniform(6, 18)
        yx = np.arange(size, dtype=np.float32)
        wave = np.sin((yx[None] * np.cos(angle) + yx[:, None] * np.sin(angle))
                      * 2 * np.pi / period)
        image += (rng.uniform(6, 20) * wave)[..., None].astype(np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def _clutter(rng, image, amount):
    """Lines and blobs, some in the palette's own colours: no object of any
    name, though a colour detector would take them for one."""
    size = image.shape[0]
    palette = [c for c in COLOURS.values() if c is not None]
    for _ in range(rng.poisson(amount)):
        if rng.uniform() < 0.5:
            colour = palette[rng.randint(len(palette))]
            colour = tuple(float(v) for v in colour + rng.uniform(-25, 25, 3))
        else:
            colour = tuple([float(rng.uniform(20, 235))] * 3)
        x, y = rng.uniform(0, size, 2)
        if rng.uniform() < 0.5:
            dx, dy = rng.uniform(-0.4, 0.4, 2) * size
            cv2.line(image, (int(x), int(y)), (int(x + dx), int(y + dy)),
                     colour, int(rng.randint(1, 3)), cv2.LINE_AA)
        else:
            corners = rng.randint(5, 9)
            a = np.sort(rng.uniform(0, 2 * np.pi, corners))
            r = rng.uniform(2, 8, corners)
            blob = np.stack([x + r * np.cos(a), y + r * np.sin(a)], 1)
            cv2.fillPoly(image, [np.round(blob).astype(np.int32)], colour,
                         cv2.LINE_AA)


def _fill(rng, look, x0, y0, w, h):
    """Colour of every pixel of an object's box, ``(h, w, 3)`` float32."""
    colour = COLOURS[look]
    if colour is not None:
        shade = rng.uniform(0.55, 1.2)
        flat = np.array(colour) * shade + rng.uniform(-30, 30, 3)
        return np.broadcast_to(flat.astype(np.float32), (h, w, 3))
    dark, light = rng.uniform(15, 70), rng.uniform(185, 245)
    ys, xs = np.mgrid[y0:y0 + h, x0:x0 + w].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(4.5, 6.5)
    u = (xs * np.cos(angle) + ys * np.sin(angle)) * 2 * np.pi / period
    if look == 'striped':
        value = 0.5 + 0.5 * np.tanh(3 * np.sin(u))
    else:
        v = (ys * np.cos(angle) - xs * np.sin(angle)) * 2 * np.pi / period
        value = 0.5 + 0.5 * np.tanh(4 * (np.sin(u) * np.sin(v) - 0.25))
    return np.repeat((dark + (light - dark) * value)[..., None], 3,
                     2).astype(np.float32)


def render_scene(rng: np.random.RandomState,
                 objects: Sequence[SceneObject],
                 size: int,
                 clutter: float = 10.,
                 masks: Sequence[np.ndarray] = None) -> np.ndarray:
    """Draw the ground, the clutter and the objects, back to front.

    Args:
        rng: Draws ground, clutter, shades and noise.
        objects: From :func:`place_objects`.
        size: Side of the square image in pixels.
        clutter: Mean number of lines and blobs behind the objects.
        masks: The objects' :func:`object_mask`, where already at hand.

    Returns:
        ``(size, size, 3)`` uint8, RGB.
    """
    image = _ground(rng, size)
    _clutter(rng, image, clutter)
    image = image.astype(np.float32)
    if masks is None:
        masks = [object_mask(o, size) for o in objects]
    for obj, mask in zip(objects, masks):
        r = 1.3 * obj.radius + 2
        x0, x1 = max(int(obj.x - r), 0), min(int(obj.x + r) + 1, size)
        y0, y1 = max(int(obj.y - r), 0), min(int(obj.y + r) + 1, size)
        alpha = mask[y0:y1, x0:x1, None].astype(np.float32) / 255
        box = image[y0:y1, x0:x1]
        box += alpha * (_fill(rng, obj.look, x0, y0, x1 - x0, y1 - y0) - box)
    noise = rng.randint(0, 256, (size // 2, size, 3)).astype(np.float32)
    noise = np.concatenate([noise, noise[::-1, ::-1]]) - 127.5
    image += rng.uniform(0.06, 0.32) * noise
    return np.clip(image, 0, 255).astype(np.uint8)
