"""Run the frozen tower of a config once, and store its features."""
import argparse
import os
from typing import Optional, Sequence

from .arguments import add_config, add_launcher, command, parse
from .next_command import next_command


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Store the features that the frozen tower of a config '
        'computes. An interrupted run continues when the same command is '
        'given again. The ranks of a machine share the work under torchrun '
        'with --launcher pytorch; for several machines with one shared disk, '
        'give the command on each.')
    add_config(parser)
    parser.add_argument(
        '--out', help='folder of the features (default: the feature_cache of '
        'the config, else features/ in its work dir)')
    parser.add_argument(
        '--views', type=int, default=0,
        help='augmented views per training image; 0: one view without '
        'augmentation')
    parser.add_argument(
        '--dtype', choices=['float16', 'float32'], default='float16')
    parser.add_argument(
        '--part-gb', type=float, default=4.,
        help='size of the files of features; one machine fills a file at a '
        'time (default: 4)')
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument(
        '--seed', type=int, default=0, help='draws the augmentation')
    add_launcher(parser)
    return parse(parser, argv)


@command
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    from rich.progress import Progress

    from trm_ml_mm.engine import (
        close,
        init_distributed,
        load_config,
        work_dir_of,
    )
    from trm_ml_mm.features import CacheFiller, build_tower, splits_to_cache
    cfg = load_config(args.config, args.cfg_options)
    rank = init_distributed(args.launcher, cfg)
    out = args.out or cfg.get('feature_cache') or os.path.join(
        work_dir_of(cfg), 'features')
    tower = build_tower(cfg)
    fillers = [
        CacheFiller(cfg, split, out, args.views, args.dtype, args.seed, tower,
                    args.part_gb)
        for split in splits_to_cache(cfg)
    ]
    for filler in fillers:  # room for all of them, before any is computed
        changed = filler.open()
        if rank == 0:
            print(f'{filler.folder}: {len(filler.dataset)} images x '
                  f'{filler.meta.views} views, {filler.bytes / 1e6:.1f} MB; '
                  f'{changed.added} are new or changed, {changed.gone} are '
                  'gone')
    elsewhere = 0
    for filler in fillers:
        with Progress(disable=rank != 0) as bar:
            task = bar.add_task(str(filler.folder))
            left = filler.fill(
                args.batch_size, args.workers,
                lambda done, total, bar=bar, task=task: bar.update(
                    task, completed=done, total=total))
            bar.update(task, completed=bar.tasks[0].total)  # also of nothing
        elsewhere += left
        if left and rank == 0:
            print(f'{filler.folder}: other processes are filling {left} more '
                  'parts. If they are stopped, give this command again.')
    if rank == 0 and not elsewhere:
        print('Train from them: ' + next_command(
            'train', args.config, given=args.given_options,
            options=dict(feature_cache=out)))
    close()
