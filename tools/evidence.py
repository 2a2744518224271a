"""Run the benchmark suite on the built-in set, and report on it:
python tools/evidence.py --out work_dirs/evidence"""
import argparse
import sys
from pathlib import Path


def parse_args():
    parser = argparse.ArgumentParser(
        description='Run all baselines and ablations on the built-in set and '
        'write tables and pictures. An interrupted suite continues when the '
        'same command is given again.')
    parser.add_argument('--out', default='work_dirs/evidence',
                        help='folder of all runs')
    parser.add_argument('--docs', default='docs',
                        help='folder of results.md, results.json and pictures')
    parser.add_argument(
        '--quick', action='store_true',
        help='the method and its baselines at 10%%, 50%% and single positive, '
        'one seed: minutes; the report goes to the folder of the runs')
    parser.add_argument(
        '--report', action='store_true',
        help='run nothing; report on finished runs, with "-" for ablations '
        'that are missing')
    parser.add_argument('--processes', type=int,
                        help='runs at a time (default: one per core or GPU)')
    return parser.parse_args()


def main():
    args = parse_args()
    from mmengine.logging import MMLogger

    from trm_ml_mm.experiments.manifest import check_manifests
    from trm_ml_mm.experiments.report import write_report
    from trm_ml_mm.experiments.run import cache_features, read_row, run_grid
    from trm_ml_mm.experiments.suites import (
        OPTIONS,
        VIEWS,
        is_ablation,
        plan_suite,
    )
    MMLogger.get_instance('grid')
    jobs = plan_suite(Path(__file__).parents[1] / 'configs', args.quick)
    check_manifests(jobs, args.out, OPTIONS, True)
    if not args.report:
        features = Path(args.out, 'features')
        cache_features(jobs, features, VIEWS, OPTIONS)
        run_grid(jobs, args.out, Path(__file__).with_name('train.py'),
                 args.processes, OPTIONS, features)
    missing = [job for job in jobs if read_row(job, args.out) is None]
    needed = [job for job in missing
              if not args.report or not is_ablation(job)]
    if needed:
        sys.exit(f'{len(needed)} of {len(jobs)} runs are missing or failed, '
                 f'such as {needed[0].method} at {needed[0].known}: give the '
                 'command without --report, again if necessary.')
    docs = Path(args.out, 'docs') if args.quick else Path(args.docs)
    flags = [f' --{name}' for name in ('quick', 'report')
             if getattr(args, name)]
    print(write_report([job for job in jobs if job not in missing], args.out,
                       docs, f'python tools/evidence.py{"".join(flags)}'))


if __name__ == '__main__':
    main()
