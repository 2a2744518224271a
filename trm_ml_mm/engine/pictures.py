"""Pictures of results, drawn by Matplotlib."""
from pathlib import Path
from typing import NamedTuple, Optional, Sequence, Tuple

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dataset import pseudo_collate
from mmpretrain.registry import MODELS
from torch import Tensor

from .grid import Job, scene_options
from .launch import build_dataset, fill_classes, load_config

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402  after the backend is chosen

WIDTH = 7.5  # inches, of a picture in the docs


class Curve(NamedTuple):
    """One line with error bars."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    deviation: Sequence[float]


def draw_curves(curves: Sequence[Curve], path: Path, x: str, y: str,
                zoom: Optional[float] = None) -> None:
    """Lines with error bars; a bold one for the first. With ``zoom`` a second
    panel shows what lies so close below the highest value."""
    figure, panels = plt.subplots(
        1, 1 if zoom is None else 2, squeeze=False,
        figsize=(WIDTH if zoom is None else 1.5 * WIDTH, 4.2))
    markers = 'osv^D<>pXh*P'
    for axes in panels[0]:
        for i, curve in enumerate(curves):
            axes.errorbar(curve.x, curve.y, curve.deviation, label=curve.name,
                          marker=markers[i % len(markers)], markersize=5,
                          capsize=3, linewidth=2.5 if i == 0 else 1.2)
        axes.set_xlabel(x)
        axes.set_xticks(curves[0].x)
        axes.grid(alpha=0.3)
    panels[0, 0].set_ylabel(y)
    if zoom is not None:
        top = max(max(curve.y) for curve in curves)
        axes.set_ylim(top - zoom, top + 0.1 * zoom)
    axes.legend(loc='center left', bbox_to_anchor=(1, 0.5), frameon=False,
                fontsize=8)
    _save(figure, path)


def draw_gain(points: Sequence[Tuple[float, float]], path: Path, x: str,
              y: str) -> None:
    """Dots around zero, over a logarithmic x."""
    figure, axes = plt.subplots(figsize=(WIDTH, 3.6))
    axes.axhline(0, color='black', linewidth=0.8)
    axes.scatter(*zip(*points), s=14, alpha=0.7)
    axes.set_xscale('log', base=2)
    axes.xaxis.set_major_formatter('{x:g}')
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    _save(figure, path)


def _save(figure, path: Path) -> None:
    figure.savefig(path, dpi=100, bbox_inches='tight')
    plt.close(figure)


def load_trained(job: Job, out: Path):
    """Config and trained model of a finished run, with images as input."""
    cfg = load_config(job.config, scene_options(job.scene_set))
    fill_classes(cfg)
    cfg.model.data_preprocessor = dict(cfg.data_preprocessor,
                                       type='ClsDataPreprocessor')
    cfg.model.backbone.pooled = True
    model = MODELS.build(cfg.model)
    path = max(job.work_dir(Path(out)).glob('epoch_*.pth'),
               key=lambda p: int(p.stem.split('_')[1]))
    model.load_state_dict(
        torch.load(path, map_location='cpu', weights_only=True)['state_dict'])
    return cfg, model.eval()


def pool_attention(visual, trunk: Tensor) -> Tensor:
    """Where CLIP's attention pool looks: ``(B, L)``, mean over heads, of
    ``(B, width, H, W)``."""
    pool = visual.attnpool
    x = trunk.flatten(2).permute(2, 0, 1)
    x = torch.cat([x.mean(0, keepdim=True), x])
    x = x + pool.positional_embedding[:, None]
    heads = pool.num_heads
    query = pool.q_proj(x[:1]).unflatten(-1, (heads, -1))  # 1 B h d
    keys = pool.k_proj(x).unflatten(-1, (heads, -1))  # 1+L B h d
    logits = (query * keys).sum(-1) / keys.shape[-1]**0.5
    return logits.softmax(0)[1:].mean(-1).T


@torch.no_grad()
def draw_saliency(pixel_job: Job, region_job: Job, out: Path,
                  path: Path) -> None:
    """One scene and, for each of its categories, where three kinds of
    matching look: a row per category.

    Args:
        pixel_job, region_job: Finished runs of text-pixel and text-region
            matching on the same data.
        out: Folder of the runs.
        path: The picture.
    """
    cfg, region = load_trained(region_job, out)
    _, pixel = load_trained(pixel_job, out)
    dataset = build_dataset(cfg, 'test')
    index = next(i for i in range(len(dataset))
                 if dataset.get_data_info(i)['gt_score'].sum() == 4)
    sample = dataset[index]
    batch = region.data_preprocessor(pseudo_collate([sample]))
    present = dataset.get_data_info(index)['gt_score'].nonzero()[0].tolist()
    trunk = {}
    visual = region.backbone.visual
    handle = visual.layer4.register_forward_hook(
        lambda module, args, output: trunk.update(x=output))
    feats = region.backbone(batch['inputs'])
    handle.remove()
    whole = pool_attention(visual, trunk['x'])[0]
    places = F.normalize(feats.dense[0].flatten(1), dim=0)
    text = pixel.backbone(batch['inputs']).text[0]
    pixels = (pixel.head.sharpness * text @ places).softmax(-1)
    regions = region.head.match(feats).features.saliency[0]
    grid = feats.dense.shape[-2:]
    image = sample['inputs'].permute(1, 2, 0).numpy()[..., ::-1]
    figure, axes = plt.subplots(
        len(present), 4, figsize=(WIDTH, 1.95 * len(present)), squeeze=False)
    names = dataset.metainfo['classes']
    titles = ('the scene', 'whole image', 'text-pixel', 'text-region')
    for ax, title in zip(axes[0], titles):
        ax.set_title(title, fontsize=9)
    for row, c in zip(axes, present):
        for ax, weights in zip(row, (None, whole, pixels[c], regions[c])):
            ax.imshow(image)
            if weights is not None:
                ax.imshow(_enlarged(weights.view(grid), image.shape[:2]),
                          cmap='inferno', alpha=0.65)
            ax.set_xticks([])
            ax.set_yticks([])
        row[0].set_ylabel(names[c], fontsize=9)
    figure.tight_layout(pad=0.4)
    _save(figure, path)


def _enlarged(weights: Tensor, size: Sequence[int]) -> np.ndarray:
    return F.interpolate(weights[None, None], size=tuple(size),
                         mode='bicubic', align_corners=False)[0, 0].numpy()

