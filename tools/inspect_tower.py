"""Measure how a config's CLIP sees its data, and which of its dense maps sees
most:
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
# After these an input still shows the whole image, so that boxes fit.
WHOLE_IMAGE = ('LoadImageFromFile', 'RenderScene', 'Resize', 'ResizeEdge',
               'PackInputs')


def parse_args():
    parser = argparse.ArgumentParser(
        description='Measure the joint space of a config\'s CLIP on its data, '
        'without any training: cosines between texts and images, how many '
        'locations a category looks at first, zero-shot mAP; and which '
        'dense map of the tower says most about the labels.')
    add_config(parser)
    parser.add_argument('--split', choices=['train', 'val', 'test'],
                        default='val')
    parser.add_argument('--images', type=int, default=256,
                        help='how many images to measure on')
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--dense', nargs='+', metavar='OPTION',
                        help='compare these dense maps (default: all that '
                        'the tower can make)')
    parser.add_argument('--windows', nargs=2, type=int,
                        metavar=('SIZE', 'STRIDE'),
                        help='compare them in windows too; in pixels')
    return parse(parser)


@command
def main():
    args = parse_args()
    from rich.console import Console
    from rich.table import Table

    from trm_ml_mm.evaluation import average_precision, mean_over_classes
    from trm_ml_mm.labels import UNKNOWN
    model, aligned, geometry, locations, maps = measure(args)
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
    print_maps(console, maps, geometry.targets,
               model.backbone.image_tower.default)
    for text in warnings_of(geometry, rows, aligned):
        console.print(f'Warning: {text}', soft_wrap=True, markup=False)


def measure(args):
    """The model, whether its config aligns the joint space, the geometry of
    the images, the number of locations, and the scores of the dense maps:
    (option, windows) -> :class:`DenseScores`.

    Images are spread evenly over the split: many lists are sorted by class.
    """
    import torch
    from mmengine.dataset import pseudo_collate
    from mmpretrain.registry import MODELS

    from trm_ml_mm.engine import build_dataset, fill_classes, load_config
    from trm_ml_mm.models import CLIPPromptBackbone
    from trm_ml_mm.models.dense_scores import joined_scores, score_dense_map
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
    towers = [model.backbone]
    if args.windows:
        towers.append(windowed(cfg, model, args.windows))
    options = args.dense or model.backbone.image_tower.dense_options
    region = cfg.model.head.get('region') or {}
    dataset = build_dataset(cfg, args.split)
    with_boxes = shows_whole_images(dataset)
    count = min(args.images, len(dataset))
    chosen = [i * len(dataset) // count for i in range(count)]
    parts, maps = [], {}
    with torch.no_grad():
        for start in range(0, count, args.batch_size):
            indices = chosen[start:start + args.batch_size]
            batch = pseudo_collate([dataset[i] for i in indices])
            boxes = [boxes_of(dataset, i) if with_boxes else None
                     for i in indices]
            data = model.data_preprocessor(batch)
            feats = model.backbone(data['inputs'])
            targets = targets_of(data['data_samples'],
                                 len(feats.zero_shot_text))
            part = measure_geometry(feats, targets, region.get(
                'attention_scale', 40.), aligned)
            parts.append(type(part)(*(v.cpu() for v in part)))
            for backbone in towers:
                for name, dense in dense_maps(backbone, options,
                                              data['inputs']):
                    maps.setdefault(name, []).append(score_dense_map(
                        dense, feats.zero_shot_text, targets, boxes))
    return (model, aligned, joined(parts), feats.dense.shape[-2:].numel(),
            {name: joined_scores(found) for name, found in maps.items()})


def windowed(cfg, model, windows):
    """The config's tower once more, built for windows."""
    from mmpretrain.registry import MODELS
    size, stride = windows
    backbone = MODELS.build(dict(cfg.model.backbone, classes=None, windows=dict(
        size=size, stride=stride)))
    return backbone.eval().to(next(model.parameters()).device)


def dense_maps(backbone, options, inputs):
    """The maps that one tower makes of a batch: (option, windows), map."""
    own, where = backbone.dense, '-'
    if backbone.windows:
        where = '{size}/{stride}'.format(**backbone.windows)
    for option in options:
        backbone.dense = option
        backbone.set_encoder(compile=False)
        yield (option, where), backbone.encode_image(inputs, pooled=False)[0]
    backbone.dense = own
    backbone.set_encoder(compile=False)


def shows_whole_images(dataset) -> bool:
    """Whether the pipeline cuts nothing off and turns nothing round."""
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', [None])
    return all(type(step).__name__ in WHOLE_IMAGE for step in steps)


def boxes_of(dataset, index):
    """Boxes of an image under all wrappers; None: not known."""
    from trm_ml_mm.utils.mmengine_private import wrapped_index
    while not hasattr(dataset, 'boxes'):
        index = wrapped_index(dataset, index)
        if isinstance(index, tuple):
            dataset, index = dataset.datasets[index[0]], index[1]
        elif hasattr(dataset, 'dataset'):
            dataset = dataset.dataset
        else:
            return None
    return dataset.boxes(index)


def print_maps(console, maps, targets, default):
    """Which dense map says most about the labels."""
    from rich.table import Table

    from trm_ml_mm.evaluation import average_precision, mean_over_classes
    columns = {'mAP': {
        name: 100 * mean_over_classes(
            average_precision(scores.best, targets)).item()
        for name, scores in maps.items()}}
    hits = next(iter(maps.values())).hits
    if len(hits):
        columns['pointing'] = {
            name: 100 * scores.hits.float().mean().item()
            for name, scores in maps.items()}
    best = {title: max(values, key=values.get)
            for title, values in columns.items()}
    table = Table('dense', 'windows', title='Dense maps (%, * best)')
    for title in columns:
        table.add_column(title, justify='right')
    for name in maps:
        option, where = name
        table.add_row(
            option + ' (default)' * (option == default), where,
            *(f'{values[name]:.2f}{" *"[best[title] == name]}'
              for title, values in columns.items()))
    console.print(table)
    if len(hits):
        chance = next(iter(maps.values())).chance.mean().item()
        console.print(
            f'pointing: {len(hits)} present labels with a box; how often the '
            'best location lies in one. A random location does in '
            f'{100 * chance:.2f}.', soft_wrap=True)
    else:
        console.print('No pointing game: it needs boxes of present labels, '
                      'and a pipeline that shows whole images.')
    for title, (option, where) in best.items():
        console.print(f'Best {title}: {setting(option, where, default)}.',
                      soft_wrap=True)


def setting(option, where, default):
    """How to choose a dense map, in a command."""
    wanted = [] if option == default else [f'model.backbone.dense={option}']
    if where != '-':
        size, stride = where.split('/')
        wanted += [f'model.backbone.windows.size={size}',
                   f'model.backbone.windows.stride={stride}']
    return ('set ' + ' '.join(wanted)) if wanted else (
        f'{option}, the default: set nothing')


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
