"""Measure how a config's CLIP sees its data:
python tools/inspect_tower.py CONFIG"""
import argparse

from trm_ml_mm.cli.arguments import add_config, parse

# Published for OpenAI's CLIP: logit scale (open_clip issue 541), images against
# right and wrong texts (CLIP issue 405, ViT-B/32), two unrelated texts (CLIP
# issue 148).
PUBLISHED = {'logit scale': '100', 'text, two classes': 'at least 0.60',
             'image, right text': '0.25', 'image, wrong text': '0.19 to 0.22'}


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


def main():
    args = parse_args()
    import torch
    from mmengine.dataset import pseudo_collate
    from mmpretrain.registry import MODELS
    from rich.console import Console
    from rich.table import Table

    from trm_ml_mm.engine import build_dataset, fill_classes, load_config
    from trm_ml_mm.evaluation import average_precision, mean_over_classes
    from trm_ml_mm.labels import UNKNOWN
    from trm_ml_mm.models.geometry import joined, measure_geometry
    cfg = load_config(args.config, args.cfg_options)
    fill_classes(cfg, args.split)
    cfg.model.backbone.pooled = True
    region = cfg.model.head.get('region') or {}
    attention = region.get('attention_scale', 40.)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model = MODELS.build(cfg.model).eval().to(device)
    dataset = build_dataset(cfg, args.split)
    scale = model.backbone.text.clip.logit_scale.exp().item()
    parts = []
    with torch.no_grad():
        count = min(args.images, len(dataset))
        for start in range(0, count, args.batch_size):
            batch = pseudo_collate([dataset[i] for i in range(
                start, min(start + args.batch_size, count))])
            data = model.data_preprocessor(batch)
            feats = model.backbone(data['inputs'])
            targets = torch.stack([s.gt_score for s in data['data_samples']])
            geometry = measure_geometry(feats, targets, attention)
            parts.append(type(geometry)(*(v.cpu() for v in geometry)))
    geometry = joined(parts)
    rows = {'logit scale': scale, **geometry.summary()}
    table = Table(title=f'{model.backbone.arch}, {count} images, split '
                  f'{args.split}')
    table.add_column('cosines')
    table.add_column('here', justify='right')
    table.add_column('published for OpenAI\'s CLIP', justify='right')
    for name, value in rows.items():
        table.add_row(name, f'{value:.3f}', PUBLISHED.get(name, ''))
    known = geometry.targets != UNKNOWN
    for level, scores in (('global', geometry.image),
                          ('dense', geometry.best)):
        value = 100 * mean_over_classes(
            average_precision(scores, geometry.targets)).item()
        table.add_row(f'zero-shot mAP, {level}', f'{value:.2f}', '')
    console = Console(width=78)
    console.print(table)
    console.print(
        f'{int(known.sum())} known labels. Locations attended: by a category '
        'at the start of training, out of '
        f'{feats.dense.shape[-2] * feats.dense.shape[-1]}.')
    for text in warnings_of(rows, cfg.model.backbone.get('align')):
        console.print(f'Warning: {text}', soft_wrap=True, markup=False)


def warnings_of(rows, aligned):
    """What a user should know about this joint space."""
    gap = rows['image, right text'] - rows['image, wrong text']
    if gap <= 0:
        yield ('images are not closer to right texts than to wrong ones: the '
               'weights do not fit the architecture, QuickGELU is wrong, or '
               'the class names are no words.')
    if rows['best location, right text'] <= rows['best location, wrong text']:
        yield ('locations are not closer to right texts than to wrong ones: '
               'the dense map of this tower says nothing about these classes.')
    if rows['text, two classes'] > 0.5 and not aligned:
        yield ('texts share a narrow cone, as in every real CLIP: set '
               'model.backbone.align=True, without which scales that were '
               'tuned on the built-in tower do not fit.')


if __name__ == '__main__':
    main()
