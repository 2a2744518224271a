"""Run the benchmark suite on the built-in set, and report on it:
python tools/evidence.py --out work_dirs/evidence"""
import argparse
import sys
from pathlib import Path

from trm_ml_mm.cli.arguments import command, parse

PARTS = ['main', 'ablations', 'few_labels', 'other_tower', 'scenes_500',
         'scenes_20000']


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
        help='run nothing; report on finished runs, with "-" for those '
        'outside the main part that are missing')
    parser.add_argument('--parts', nargs='+', choices=PARTS,
                        help='run these parts only')
    parser.add_argument('--processes', type=int,
                        help='runs at a time (default: one per core or GPU)')
    return parse(parser)


@command
def main():
    args = parse_args()
    from trm_ml_mm.experiments.manifest import check_manifests
    from trm_ml_mm.experiments.report import write_report
    from trm_ml_mm.experiments.run import cache_features, read_row, run_grid
    from trm_ml_mm.experiments.suites import (
        OPTIONS,
        is_needed,
        plan_suite,
    )
    parts = plan_suite(Path(__file__).parents[1] / 'configs', args.quick)
    jobs = [job for part in parts for job in part.jobs]
    check_manifests(jobs, args.out, OPTIONS, True)
    run = [part for part in parts if not args.report
           and (not args.parts or part.name in args.parts)]
    for part in run:
        features = Path(args.out, 'features')
        cache_features(part.jobs, features, part.views, OPTIONS)
        run_grid(part.jobs, args.out, Path(__file__).with_name('train.py'),
                 args.processes, OPTIONS, features)
    needed = [job for part in parts if is_needed(part) or part in run
              for job in part.jobs if read_row(job, args.out) is None]
    if needed:
        sys.exit(f'{len(needed)} runs are missing or failed, such as '
                 f'{needed[0].method} at {needed[0].known}: give the command '
                 'without --report, again if necessary.')
    docs = Path(args.out, 'docs') if args.quick else Path(args.docs)
    flags = [f' --{name}' for name in ('quick', 'report')
             if getattr(args, name)]
    print(write_report(parts, args.out, docs,
                       f'python tools/evidence.py{"".join(flags)}'))


if __name__ == '__main__':
    main()
