"""Does a method depend on how wide the joint space is? Train on the built-in
set with the tower's output changed, and nothing else:
python tools/benchmarks/geometry.py --methods trm_ml text_pixel

Three ways in which a real joint space differs from that of 'mini-wide':

* cone c: all images share a constant, and all texts share one, so that
  differences between cosines shrink to c times their size;
* gap rho: the cosine of the two constants (1: images and texts share a cone);
* content: a part of every image feature that no text has (40% of its square).
"""
import argparse
import statistics
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from trm_ml_mm.cli.arguments import setting
from trm_ml_mm.engine import build_runner, load_config
from trm_ml_mm.evaluation import read_record
from trm_ml_mm.experiments.plan import parse_options
from trm_ml_mm.experiments.tables import markdown, setting_name
from trm_ml_mm.features import CacheFiller, build_tower, splits_to_cache
from trm_ml_mm.models import CLIPPromptBackbone
from trm_ml_mm.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'configs'
CONTENT_WIDTH = 64
ARCH = 'mini-wide'
CONSTANT_WIDTH = 4  # 2 would do; heads of attention need a multiple of 4
GEOMETRIES = {'as it is': {}}
GEOMETRIES.update({
    f'c 1/{n}, rho {rho:g}': dict(cone=1 / n, gap=rho)
    for n in (3, 6, 12) for rho in (1., .6, .2)})
GEOMETRIES['c 1/3, rho 0.2, content 40%'] = dict(cone=1 / 3, gap=.2,
                                                 content=.4)


@MODELS.register_module()
class DistortedCLIPPromptBackbone(CLIPPromptBackbone):
    """A CLIP with another geometry; what it knows stays the same.

    Args:
        cone, gap, content: See above.
        *args, **kwargs: Of :class:`CLIPPromptBackbone`.
    """

    def __init__(self, *args, cone: float = 1., gap: float = 1.,
                 content: float = 0., **kwargs):
        super().__init__(*args, **kwargs)
        self.cone, self.gap, self.content = cone, gap, content
        generator = torch.Generator().manual_seed(5)
        self.register_buffer('mix', torch.randn(
            self.embed_dim, CONTENT_WIDTH, generator=generator),
            persistent=False)
        self.embed_dim += CONTENT_WIDTH + CONSTANT_WIDTH
        if self.text is not None:
            text, plain = self.text, self.text._tower_features
            text.embed_dim = self.embed_dim
            if text.residual_scale:  # learned in the distorted space
                text.residual = nn.Parameter(torch.zeros(
                    *text.residual.shape[:2], self.embed_dim))
            text._tower_features = lambda prompt: self.distort_text(
                plain(prompt))

    def in_cone(self, x, *constant):
        constant = F.pad(x.new_tensor(constant), (0, CONSTANT_WIDTH - 2))
        return torch.cat([
            self.cone**.5 * x,
            (1 - self.cone)**.5 * constant.expand(*x.shape[:-1], -1)], -1)

    def distort_text(self, text):
        text = torch.cat([text, text.new_zeros(*text.shape[:-1],
                                               CONTENT_WIDTH)], -1)
        return self.in_cone(text, self.gap, (1 - self.gap**2)**.5)

    def distort_image(self, image):
        image = F.normalize(image.float(), dim=-1)
        own = torch.tanh(24 * image @ self.mix / image.shape[-1]**.5)
        own = F.normalize(own, dim=-1)
        image = torch.cat([(1 - self.content)**.5 * image,
                           self.content**.5 * own], -1)
        return self.in_cone(image, 1., 0.)

    def encode_image(self, x, pooled=True):
        dense, embedding = super().encode_image(x, pooled)
        if self.text is None:  # the tower of a feature cache: as it is
            return dense, embedding
        locations = self.distort_image(dense.flatten(2).transpose(1, 2))
        dense = locations.transpose(1, 2).unflatten(2, dense.shape[-2:])
        return dense, None if embedding is None else self.distort_image(
            embedding)


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--methods', nargs='+', default=['trm_ml'],
                        help='trm_ml, or a config in baselines or ablations')
    parser.add_argument('--known', nargs='+', default=['0.1'])
    parser.add_argument('--seeds', nargs='+', type=int, default=[0])
    parser.add_argument('--geometries', nargs='+', default=list(GEOMETRIES),
                        choices=list(GEOMETRIES))
    parser.add_argument('--unaligned', action='store_true',
                        help='train on the joint space as it is')
    parser.add_argument('--split', choices=['val', 'test'], default='test')
    parser.add_argument('--features', help='folder of cached features')
    parser.add_argument('--cfg-options', nargs='+', default=[],
                        help='further options of every run, key=value')
    return parser.parse_args()


def config_of(method):
    found = [CONFIGS / 'trm_ml_scenes.py'] if method == 'trm_ml' else [
        path for folder in ('baselines', 'ablations')
        for path in (CONFIGS / folder).glob(f'{method}.py')]
    return str(found[0])


def fill(folder):
    cfg = load_config(config_of('trm_ml'), {'arch': ARCH})
    tower = build_tower(cfg)
    for split in splits_to_cache(cfg):
        CacheFiller(cfg, split, folder, 4, tower=tower).fill(workers=0)


def train(args, method, known, seed, geometry, features):
    """mAP of the last epoch."""
    with tempfile.TemporaryDirectory() as work_dir:
        build_runner(config_of(method), work_dir, {
            'model.backbone': dict(
                type='trm_ml_mm.DistortedCLIPPromptBackbone',
                align=not args.unaligned, **GEOMETRIES[geometry]),
            'arch': ARCH,
            'train_dataloader.dataset.known': setting(known),
            'train_dataloader.dataset.seed': seed or None,
            'randomness.seed': seed, 'feature_cache': features,
            'train_cfg.val_interval': 10, 'log_level': 'ERROR',
            'default_hooks.checkpoint.interval': 10,
            'default_hooks.checkpoint.save_best': None,
            'experiment_name': Path(work_dir).name,
            **parse_options(args.cfg_options)}).train()
        record = read_record(work_dir)
        metrics = record.validation if args.split == 'val' else record.row(
            'last').metrics
        return metrics['mAP']


def main():
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        features = args.features or folder
        fill(features)
        print(markdown(table_of(args, features)))


def table_of(args, features):
    """One line per geometry, one column per method and label setting."""
    columns = [f'{method}, {setting_name(setting(known))}'
               for method in args.methods for known in args.known]
    lines = [['mAP', *columns]]
    for geometry in args.geometries:
        line = [geometry]
        for method in args.methods:
            for known in args.known:
                line.append('{:.2f}'.format(statistics.fmean(
                    train(args, method, known, seed, geometry, features)
                    for seed in args.seeds)))
        lines.append(line)
        print(' | '.join(line), flush=True)
    return lines


if __name__ == '__main__':
    main()
