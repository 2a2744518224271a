"""Configs x label settings x seeds, and the table of them:
python tools/run_grid.py configs/trm_ml_scenes.py --known 0.1 0.5 0.9 \
    --seeds 0 1 2 --out work_dirs/grid"""
import argparse
import sys
from pathlib import Path

from trm_ml_mm.cli.arguments import command, parse, setting


def parse_args():
    parser = argparse.ArgumentParser(
        description='Run configs x label settings x seeds. An interrupted grid '
        'continues when the same command is given again. Seed 0 means the '
        'published mask of a protocol.')
    parser.add_argument('configs', nargs='+', help='config files')
    parser.add_argument(
        '--known', nargs='+', type=setting, required=True,
        help="proportions of known labels, or 'single_positive'")
    parser.add_argument('--seeds', nargs='+', type=int, default=[0])
    parser.add_argument(
        '--scene-sets', nargs='+', type=int, default=[None],
        help='of the built-in set (default: that of the config)')
    parser.add_argument(
        '--features', help='run the frozen tower once, store its features in '
        'this folder, and train from them; all configs must share the tower')
    parser.add_argument(
        '--views', type=int, default=2,
        help='augmented views per training image in --features')
    parser.add_argument('--out', required=True, help='folder of all runs')
    parser.add_argument(
        '--processes', type=int,
        help='runs at a time (default: one per GPU, else one per core)')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[],
        help='override config entries in every run: key=value')
    return parse(parser)


@command
def main():
    args = parse_args()
    from trm_ml_mm.experiments.plan import plan
    from trm_ml_mm.experiments.run import cache_features, read_row, run_grid
    from trm_ml_mm.experiments.tables import save_tables
    data = [() if number is None else (f'scene_set={number}', )
            for number in args.scene_sets]
    jobs = plan(args.configs, args.known, args.seeds, data)
    if args.features:
        cache_features(jobs, args.features, args.views, args.cfg_options)
    rows = run_grid(jobs, args.out, Path(__file__).with_name('train.py'),
                    args.processes, args.cfg_options, args.features)
    print(save_tables(rows, args.out))
    done = sum(read_row(job, args.out) is not None for job in jobs)
    print(f'{done} of {len(jobs)} runs; rows in {args.out}/rows.json')
    sys.exit(done < len(jobs))


if __name__ == '__main__':
    main()
