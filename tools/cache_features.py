"""Run the frozen tower once, keep its features, train from them:
python tools/cache_features.py CONFIG
python tools/train.py CONFIG --cfg-options feature_cache=work_dirs/NAME/features
"""
import argparse
import os

from mmengine.config import DictAction
from rich.progress import Progress


def parse_args():
    parser = argparse.ArgumentParser(
        description='Keep the features that the frozen tower of a config '
        'gives. An interrupted run goes on when the same command is given '
        'again; several ranks share the work under torchrun with --launcher '
        'pytorch.')
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--out', help='folder of the features (default: the feature_cache of '
        'the config, else features/ in its work dir)')
    parser.add_argument(
        '--views', type=int, default=0,
        help='augmented views of each training image; 0: one plain view')
    parser.add_argument(
        '--dtype', choices=['float16', 'float32'], default='float16')
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument(
        '--seed', type=int, default=0, help='draws the augmentation')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction,
        help='override config entries')
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main():
    args = parse_args()
    from trm_ml_mm.engine.caching import (
        CacheFiller,
        build_tower,
        parts_to_cache,
    )
    from trm_ml_mm.engine.launch import (
        close,
        init_distributed,
        load_config,
        work_dir_of,
    )
    cfg = load_config(args.config, args.cfg_options)
    rank = init_distributed(args.launcher, cfg)
    out = args.out or cfg.get('feature_cache') or os.path.join(
        work_dir_of(cfg, args.config), 'features')
    tower = build_tower(cfg)
    fillers = [
        CacheFiller(cfg, part, out, args.views, args.dtype, args.seed, tower)
        for part in parts_to_cache(cfg)
    ]
    if rank == 0:
        for filler in fillers:
            print(f'{filler.folder}: {len(filler.dataset)} images x '
                  f'{filler.meta.views} views, {filler.bytes / 1e9:.2f} GB')
    for filler in fillers:
        filler.open()  # room for all of them, before any is computed
    for filler in fillers:
        with Progress(disable=rank != 0) as bar:
            task = bar.add_task(str(filler.folder))
            filler.fill(
                args.batch_size, args.workers,
                lambda done, total, bar=bar, task=task: bar.update(
                    task, completed=done, total=total))
    if rank == 0:
        print(f'Train from it: python tools/train.py {args.config} '
              f'--cfg-options feature_cache={out}')
    close()


if __name__ == '__main__':
    main()
