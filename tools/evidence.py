"""All rivals and ablations on the built-in set, and the report of them:
python tools/evidence.py --out work_dirs/evidence"""
import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs'
SETTINGS = (0.1, 0.3, 0.5, 0.7, 0.9, 'single_positive')
# Nothing of a run is looked at before its last epoch.
OPTIONS = ['train_cfg.val_interval=10', 'default_hooks.checkpoint.interval=10',
           'default_hooks.checkpoint.save_best=None',
           'default_hooks.logger.interval=1000']
VIEWS = 4


def parse_args():
    parser = argparse.ArgumentParser(
        description='Run the comparison on the built-in set and write tables '
        'and pictures. What was interrupted goes on when the same command is '
        'given again.')
    parser.add_argument('--out', default='work_dirs/evidence',
                        help='folder of all runs')
    parser.add_argument('--docs', default='docs',
                        help='folder of results.md, results.json and pictures')
    parser.add_argument(
        '--quick', action='store_true',
        help='rivals and the method at 10%%, 50%% and single positive, one '
        'seed: minutes; the report goes to the folder of the runs')
    parser.add_argument(
        '--report', action='store_true',
        help='run nothing: report what is finished, ablations that are not '
        'as "-"')
    parser.add_argument('--processes', type=int,
                        help='runs at a time (default: one per core or GPU)')
    return parser.parse_args()


def plan_all(quick):
    """Every job; a seed draws mask and initialisation, and seeds alternate
    between two scene sets."""
    from trm_ml_mm.engine.grid import plan
    from trm_ml_mm.engine.results import TRAINED
    ours = CONFIGS / 'trm_ml_scenes.py'
    main = [ours, *(CONFIGS / f'baselines/{name}.py' for name in TRAINED),
            CONFIGS / 'ablations/base.py']
    ablations = [path for path in sorted(CONFIGS.glob('ablations/*.py'))
                 if path not in main]
    main, ablations = [*map(str, main)], [*map(str, ablations)]
    settings = (0.1, 0.5, 'single_positive') if quick else SETTINGS
    jobs = []
    for seed in range(1 if quick else 4):
        scene_sets = [seed % 2]
        jobs += plan(main, settings, [seed], scene_sets)
        # All labels known: what hidden ones would be worth.
        jobs += plan([str(ours)], ['all'], [seed], scene_sets)
    for seed in range(0 if quick else 3):
        jobs += plan(ablations, settings, [seed], [seed % 2])
    return jobs


def is_ablation(job):
    """Whether a run may be missing from a report."""
    path = Path(job.config)
    return path.parent.name == 'ablations' and path.stem != 'base'


def main():
    args = parse_args()
    from mmengine.logging import MMLogger

    from trm_ml_mm.engine.grid import (
        cache_features,
        check_places,
        read_row,
        run_grid,
    )
    from trm_ml_mm.engine.results import write_report
    MMLogger.get_instance('grid')
    jobs = plan_all(args.quick)
    check_places(jobs, args.out, OPTIONS, True)
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
                 'command without --report, again if need be.')
    docs = Path(args.out, 'docs') if args.quick else Path(args.docs)
    flags = [f' --{name}' for name in ('quick', 'report')
             if getattr(args, name)]
    print(write_report([job for job in jobs if job not in missing], args.out,
                       docs, f'python tools/evidence.py{"".join(flags)}'))


if __name__ == '__main__':
    main()
