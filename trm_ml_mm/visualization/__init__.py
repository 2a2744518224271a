"""Pictures. They know images, maps, curves and names; not runs or jobs."""
from .curves import Curve, draw_curves, draw_points
from .saliency import draw_maps
from .samples import draw_samples

__all__ = ['Curve', 'draw_curves', 'draw_maps', 'draw_points', 'draw_samples']
