"""Test a checkpoint: python tools/test.py CONFIG CHECKPOINT"""
import argparse
import os
import sys

from mmengine.config import DictAction


def parse_args():
    parser = argparse.ArgumentParser(description='Test a checkpoint')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='where logs go')
    parser.add_argument(
        '--per-class', action='store_true', help='print every class too')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override config entries')
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
    from trm_ml_mm.engine import ReportHook
    from trm_ml_mm.engine.launch import build_runner, close
    runner = build_runner(
        args.config,
        work_dir=args.work_dir,
        options=args.cfg_options,
        launcher=args.launcher,
        checkpoint=args.checkpoint)
    reports = [hook for hook in runner.hooks if isinstance(hook, ReportHook)]
    if args.per_class and not reports:
        sys.exit('--per-class needs ReportHook, which prints the table: put '
                 'trm_ml_mm.ReportHook into custom_hooks of the config.')
    for hook in reports:
        hook.per_class |= args.per_class
    runner.test()
    del runner, reports
    close()


if __name__ == '__main__':
    main()
