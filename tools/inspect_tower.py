"""Measure how a config's CLIP sees its data:
python tools/inspect_tower.py CONFIG"""
import argparse
import sys

from trm_ml_mm.cli.arguments import add_config, command, parse

# Reported for OpenAI's CLIP: value and where.
PUBLISHED = {
    'logit scale': ('100', 'open_clip issue 541'),
    'text, two classes': ('at least 0.60', 'CLIP issue 148'),
    'image, right text': ('0.25', 'CLIP issue 405, ViT-B/32'),
    'image, wrong text': ('0.19 to 0.22', 'CLIP issue 405, ViT-B/32')}

LEAST_SEPARATION = 0.2  # standard deviations


def parse_args():
    parser = argparse.ArgumentParser(
        description='Measure the joint space of a config\'s CLIP on its data, '
        'without any training: cosines between texts and images, how many '
        'locations a category looks at first, and zero-shot mAP.')
    add_config(parser)
    parser.add_argument('--split', choices=['train', 'val', 'test'],
                        default='val')
    parser.add_argument('--images', type=int, default=256,
                        help='how many images to measure on')
    parser.add_argument('--batch-size', type=int, default=16)
    return parse(parser)


@command
def main():
    args = parse_args()
    from rich.console import Console
    from rich.table import Table

    from trm_ml_mm.evaluation import average_precision, mean_over_classes
    from trm_ml_mm.labels import UNKNOWN
    model, aligned, geometry, locations = measure(args)
    rows = dict({'logit scale': model.backbone.text.clip.logit_scale.exp(
        ).item()}, **geometry.summary())
    table = Table(title=f'{model.backbone.arch}, {len(geometry.targets)} '
                  f'images, split {args.split}')
    table.add_column('measure')
    table.add_column('here', justify='right')
    table.add_column('OpenAI\'s CLIP, as reported')
    for name, value in rows.items():
        table.add_row(name, f'{value:.3f}', ' ('.join(PUBLISHED[name]) + ')'
                      if name in PUBLISHED else '')
    for level, scores in (('global', geometry.image),
                          ('dense', geometry.best)):
        value = 100 * mean_over_classes(
            average_precision(scores, geometry.targets)).item()
        table.add_row(f'zero-shot mAP, {level}', f'{value:.2f}')
    console = Console(width=90)
    console.print(table)
    console.print(
        f'{int((geometry.targets != UNKNOWN).sum())} known labels. Locations '
        'attended: by a category at the start of training, out of '
        f'{locations}.', soft_wrap=True)
    for text in warnings_of(geometry, rows, aligned):
        console.print(f'Warning: {text}', soft_wrap=True, markup=False)


def measure(args):
    """The model, whether its config aligns the joint space, the geometry of
    the images, and the number of locations.

    Images are spread evenly over the split: many lists are sorted by class.
    """
    import torch
    from mmengine.dataset import pseudo_collate
    from mmpretrain.registry import MODELS

    from trm_ml_mm.engine import build_dataset, fill_classes, load_config
    from trm_ml_mm.models import CLIPPromptBackbone
    from trm_ml_mm.models.geometry import joined, measure_geometry
    from trm_ml_mm.models.heads import targets_of
    cfg = load_config(args.config, args.cfg_options)
    kind = MODELS.get(cfg.model.backbone.type)
    if kind and not issubclass(kind, CLIPPromptBackbone):
        sys.exit(f'{args.config} has the backbone {cfg.model.backbone.type}, '
                 'which has no joint space with text: give a config with '
                 'CLIPPromptBackbone.')
    fill_classes(cfg, args.split)
    if cfg.get('data_preprocessor'):
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    aligned = bool(cfg.model.backbone.get('align'))
    cfg.model.backbone.update(pooled=True, align=True)
    model = MODELS.build(cfg.model).eval().to(
        'cuda' if torch.cuda.is_available() else 'cpu')
    region = cfg.model.head.get('region') or {}
    dataset = build_dataset(cfg, args.split)
    count = min(args.images, len(dataset))
    chosen = [i * len(dataset) // count for i in range(count)]
    parts = []
    with torch.no_grad():
        for start in range(0, count, args.batch_size):
            batch = pseudo_collate([
                dataset[i] for i in chosen[start:start + args.batch_size]])
            data = model.data_preprocessor(batch)
            feats = model.backbone(data['inputs'])
            targets = targets_of(data['data_samples'],
                                 len(feats.zero_shot_text))
            part = measure_geometry(feats, targets, region.get(
                'attention_scale', 40.), aligned)
            parts.append(type(part)(*(v.cpu() for v in part)))
    return model, aligned, joined(parts), feats.dense.shape[-2:].numel()


def warnings_of(geometry, rows, aligned):
    """What a user should know about this joint space."""
    from trm_ml_mm.models.geometry import separation
    if separation(geometry.image, geometry.targets) < LEAST_SEPARATION:
        yield ('images are not closer to right texts than to wrong ones: the '
               'weights do not fit the architecture, QuickGELU is wrong, or '
               'the class names are no words.')
    if separation(geometry.best, geometry.targets) < LEAST_SEPARATION:
        yield ('locations are not closer to right texts than to wrong ones: '
               'the dense map of this tower says nothing about these classes.')
    if rows['text, two classes'] > 0.5 and not aligned:
        yield ('texts share a narrow cone, as in every real CLIP: set '
               'model.backbone.align=True, without which scales that were '
               'tuned on the built-in tower do not fit.')


if __name__ == '__main__':
    main()
