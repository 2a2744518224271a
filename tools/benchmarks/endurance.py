"""Memory and open files over many steps of the real training loop, with
validation and checkpoints: python tools/benchmarks/endurance.py

Exit status 1 if memory grows by more than 2% after the first tenth, or a file
stays open."""
import argparse
import os
import sys
import tempfile
from pathlib import Path

from mmengine.hooks import Hook

from trm_ml_mm.engine import build_runner, load_config
from trm_ml_mm.features import CacheFiller, splits_to_cache

CONFIG = 'configs/trm_ml_scenes.py'
STEPS_PER_EPOCH = 10


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--steps', type=int, default=10_000)
    parser.add_argument('--images', action='store_true',
                        help='load and encode images in each step, with two '
                        'loader workers, instead of stored features')
    return parser.parse_args()


class Watch(Hook):
    """Notes resident memory (MB) and open files ten times."""

    priority = 'VERY_LOW'

    def __init__(self, steps):
        self.every, self.seen = steps // 10, []

    def after_train_iter(self, runner, *args, **kwargs):
        if (runner.iter + 1) % self.every == 0:
            status = Path('/proc/self/status').read_text()
            memory = int(status.split('VmRSS:')[1].split()[0]) / 1024
            files = len(os.listdir('/proc/self/fd'))
            self.seen.append((runner.iter + 1, memory, files))
            print(f'step {runner.iter + 1}: {memory:.1f} MB, {files} files',
                  flush=True)


def main():
    args = parse_args()
    epochs = args.steps // STEPS_PER_EPOCH
    options = {
        'epochs': epochs,
        'train_cfg.val_interval': 10,
        'default_hooks.checkpoint.interval': 10,
        'train_dataloader.batch_size': 8,
        'train_dataloader.dataset.dataset.num_images': 8 * STEPS_PER_EPOCH,
        'val_dataloader.dataset.num_images': 40,
        'test_dataloader.dataset.num_images': 40,
        'train_dataloader.num_workers': 2 if args.images else 0,
        'val_dataloader.num_workers': 0,
    }
    with tempfile.TemporaryDirectory() as folder:
        if not args.images:
            cfg = load_config(CONFIG, options)
            for split in splits_to_cache(cfg):
                CacheFiller(cfg, split, Path(folder, 'cache'), views=1).fill(
                    workers=0)
            options['feature_cache'] = f'{folder}/cache'
        runner = build_runner(CONFIG, f'{folder}/run', options)
        watch = Watch(args.steps)
        runner.register_hook(watch)
        runner.train()
    first, last = watch.seen[0], watch.seen[-1]
    growth = last[1] / first[1] - 1
    print(f'memory {100 * growth:+.2f}%, files {last[2] - first[2]:+d} from '
          f'step {first[0]} to step {last[0]}')
    sys.exit(growth > .02 or last[2] > first[2])


if __name__ == '__main__':
    main()
