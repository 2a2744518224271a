"""Export a trained model to a file that needs nothing of this package."""
import argparse
from math import isfinite
from typing import Optional

from .arguments import add_cfg_options, command, parse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write a trained model as a file that predicts without '
        'this package, and compare it with the model')
    parser.add_argument('checkpoint', help='checkpoint of a training')
    parser.add_argument(
        '--format', default='onnx',
        choices=['onnx', 'torch_export', 'torchscript'])
    parser.add_argument('--out', required=True, metavar='FILE',
                        help='file to write')
    parser.add_argument(
        '--maps', action='store_true',
        help='also give the saliency map of each class')
    parser.add_argument(
        '--preprocess', action='store_true',
        help='take RGB images (B, 3, H, W) of 0..255; resize and normalise '
        'them inside')
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument(
        '--fp16', action='store_true',
        help='the backbone in half precision')
    precision.add_argument(
        '--int8', action='store_true',
        help='the backbone in 8 bits (ONNX); needs --calibrate-on')
    parser.add_argument(
        '--calibrate-on', nargs='+', metavar='IMAGES',
        help='some hundred images like those it will see, for --int8')
    parser.add_argument(
        '--check-images', nargs='+', metavar='IMAGES',
        help='compare file and model on these (default: built-in scenes)')
    parser.add_argument(
        '--evaluate', metavar='CONFIG',
        help='print the mAP of model and file on its test set')
    add_cfg_options(parser)
    parser.add_argument(
        '--rounds', type=int, default=5,
        help='measure the speed so often (0: do not)')
    parser.add_argument(
        '--config', help='config it was trained with; only needed for a '
        'checkpoint that does not describe its model')
    parser.add_argument(
        '--weights', help='file of the CLIP, if it is not where it was in '
        'training')
    args = parse(parser)
    if args.int8 and not args.calibrate_on:
        parser.error('--int8 needs --calibrate-on: the ranges of activations '
                     'are taken from images')
    if args.calibrate_on and not args.int8:
        parser.error('--calibrate-on is for --int8')
    if args.cfg_options and not args.evaluate:
        parser.error('--cfg-options change the config of --evaluate')
    return args


@command
def main() -> None:
    args = parse_args()
    from rich.console import Console

    from trm_ml_mm.apis import load_model
    from trm_ml_mm.export import export_model
    console = Console()
    precision = 'fp16' if args.fp16 else 'int8' if args.int8 else 'fp32'
    loaded = load_model(args.checkpoint, args.config, weights=args.weights)
    dataset = args.evaluate and test_set(
        args.evaluate, args.cfg_options, loaded.description.classes)
    with console.status('Writing and checking the file'):
        report = export_model(
            loaded, args.out, args.format, args.maps, args.preprocess,
            precision, args.check_images, args.calibrate_on, args.rounds)
    console.print(f'Written: {args.out}, {report.size / 1e6:.1f} MB, '
                  f'{args.format}, {precision}', soft_wrap=True, markup=False)
    print_report(console, report)
    if dataset is not None:
        print_cost(console, loaded, dataset, args)


def test_set(config: str, options: Optional[dict], classes):
    """The labelled test set of a config.

    Raises:
        ValueError: If it has other classes than the model.
    """
    from trm_ml_mm.engine import build_dataset, fill_classes, load_config
    cfg = load_config(config, options)
    fill_classes(cfg, 'test')
    dataset = build_dataset(cfg, 'test')
    found = tuple(dataset.metainfo.get('classes') or ())
    if found != tuple(classes):
        raise ValueError(
            f'The test set of {config} has {len(found)} classes '
            f'({", ".join(found[:3])}, ...), and the model has {len(classes)} '
            f'others ({", ".join(classes[:3])}, ...): evaluate on the classes '
            'it was trained on, in the same order.')
    return dataset


def print_report(console, report) -> None:
    """Print how far the file is from the model, and how fast it is."""
    from rich.table import Table
    console.print(f'Compared with PyTorch on {report.images} images, in '
                  'batches of 1 and 7:')
    table = Table('output', 'largest difference')
    for name, value in report.differences.items():
        table.add_row(name, f'{value:.1e}')
    if isfinite(report.resizing):
        table.add_row('scores, by resizing inside', f'{report.resizing:.1e}')
    console.print(table)
    if report.speed:
        console.print('Milliseconds for an image:')
        table = Table('batch', 'PyTorch', 'file')
        for row in report.speed:
            table.add_row(str(row.batch), f'{row.pytorch:.1f}',
                          f'{row.file:.1f}')
        console.print(table)


def print_cost(console, loaded, dataset, args) -> None:
    """Print the mAP of model and file."""
    from trm_ml_mm.export import evaluate
    with console.status('Evaluating'):
        own, found = evaluate(loaded, args.out, args.format, dataset)
    console.print(f'mAP on {len(dataset)} labelled images: PyTorch '
                  f'{own:.2f}, file {found:.2f} ({found - own:+.2f})')
