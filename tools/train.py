"""Train a config: python tools/train.py configs/trm_ml_scenes.py"""
import argparse
import os

from mmengine.config import DictAction


def parse_args():
    parser = argparse.ArgumentParser(description='Train a model')
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='where logs and checkpoints go')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from this checkpoint; without a path, from the latest one '
        'in the work dir')
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision (GPU)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override config entries: train_dataloader.dataset.known=0.5')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none')
    # torchrun sets LOCAL_RANK, older launchers pass it
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main():
    args = parse_args()
    from trm_ml_mm.engine.launch import build_runner, close
    build_runner(
        args.config,
        work_dir=args.work_dir,
        options=args.cfg_options,
        launcher=args.launcher,
        amp=args.amp,
        resume=args.resume).train()
    close()


if __name__ == '__main__':
    main()
