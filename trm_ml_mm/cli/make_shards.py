"""Write the images of a config, or of a folder, into shards."""
import argparse
import os
import sys
from typing import Optional, Sequence

from .arguments import add_cfg_options, command, parse
from .next_command import next_command

STATUS = ('exit status: 0 all images are in the shards; 1 some cannot be '
          'read or decoded, which are listed; 2 an error')


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write image files into large tar files with an index, '
        'as they are. A training reads them with --cfg-options shards=FOLDER. '
        'A command that was stopped goes on when it is given again, and adds '
        'images that are new.', epilog=STATUS)
    parser.add_argument(
        'source', help='config, whose images of all splits are written; or a '
        'folder of images, which must be the data_root of the training')
    add_cfg_options(parser)
    parser.add_argument('--out', help='folder of the shards (default: shards '
                        'of the config)')
    parser.add_argument('--shard-size', type=float, default=1000,
                        help='of a tar file, in MB (default: 1000)')
    parser.add_argument(
        '--skip-unreadable', action='store_true',
        help='leave out images that cannot be read, and list them in '
        'skipped.txt')
    parser.add_argument('--verify', action='store_true',
                        help='then read and decode every image from the '
                        'shards')
    return parse(parser, argv)


@command
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    from trm_ml_mm.datasets.shards import undecodable, write_shards
    from trm_ml_mm.utils.checks import check_positive
    check_positive(shard_size=args.shard_size)
    images, out = images_of(args)
    done = write_shards(images, out, int(args.shard_size * 1e6),
                        args.skip_unreadable)
    print(f'{out}: {done.images} images in {done.shards} shards; {done.added} '
          'are new' + (f'; {done.skipped} cannot be read, see skipped.txt'
                       if done.skipped else ''))
    broken = undecodable(images, out) if args.verify else []
    for text in broken:
        print(text)
    if args.verify and not broken:
        print('Every image can be read and decoded.')
    if broken or done.skipped:
        sys.exit(1)
    if not os.path.isdir(args.source):
        print('Train from them: ' + next_command(
            'train', args.source, given=args.given_options,
            options=dict(shards=out)))


def images_of(args: argparse.Namespace) -> tuple:
    """The images of the source, and the folder of the shards.

    Raises:
        ValueError: If nothing says where the shards shall go.
    """
    from trm_ml_mm.datasets.images import find_images
    from trm_ml_mm.datasets.shards import ImageList
    from trm_ml_mm.engine import load_config
    from trm_ml_mm.engine.shorthands import set_shards
    if os.path.isdir(args.source):
        out, paths = args.out, find_images(args.source)
        images = ImageList(paths, [args.source] * len(paths))
    else:
        cfg = load_config(args.source, args.cfg_options)
        own = (args.cfg_options or {}).get('shards', cfg.get('shards'))
        out = args.out or (own if isinstance(own, str) or own is None
                           else own.get('folder'))
        set_shards(cfg, None)
        images = listed_images(cfg)
    if not out:
        raise ValueError('Nothing says where the shards shall go: give --out '
                         'FOLDER.')
    return images, out


def listed_images(cfg):
    """The image files of all splits of a config, in their order."""
    from trm_ml_mm.datasets.base import resolve_dataset
    from trm_ml_mm.datasets.inspection import image_paths
    from trm_ml_mm.datasets.shards import ImageList
    from trm_ml_mm.engine import build_dataset
    from trm_ml_mm.utils.configs import SPLITS, tests_on_validation
    images = ImageList([], [])
    for split in SPLITS:
        if not cfg.get(f'{split}_dataloader') or (
                split == 'test' and tests_on_validation(cfg)):
            continue
        dataset = build_dataset(cfg, split)
        paths = image_paths(dataset)
        images.paths.extend(paths)
        images.roots.extend(
            getattr(resolve_dataset(dataset, i), 'data_root', '') or ''
            for i in range(len(paths)))
    if not images.paths:
        raise ValueError('No data set of this config loads image files: there '
                         'is nothing to write.')
    return images
