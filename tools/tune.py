"""Search a config's settings on the validation set:
python tools/tune.py configs/baselines/text_pixel.py \
    --search optim_wrapper.optimizer.lr=3e-4,1e-3 model.head.logit_scale=10,20 \
    --known 0.1 single_positive --out work_dirs/tuning"""
import argparse
import itertools
import statistics
import sys
from pathlib import Path

from trm_ml_mm.cli.arguments import command, parse, setting


def parse_args():
    parser = argparse.ArgumentParser(
        description='Run every combination of the listed values in every label '
        'setting, and rank them by validation mAP of the last epoch. The '
        'table does not use the test set.')
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--search', nargs='+', required=True,
        help='key=value,value,... (numbers, words or True/False)')
    parser.add_argument('--known', nargs='+', type=setting, default=[0.1])
    parser.add_argument('--seeds', nargs='+', type=int, default=[10],
                        help='the table shows means over them')
    parser.add_argument('--scene-set', type=int)
    parser.add_argument('--features', help='as run_grid.py takes it')
    parser.add_argument('--views', type=int, default=2)
    parser.add_argument('--out', required=True, help='folder of all runs')
    parser.add_argument('--processes', type=int)
    parser.add_argument('--cfg-options', nargs='+', default=[])
    return parse(parser)


@command
def main():
    args = parse_args()
    from trm_ml_mm.experiments.plan import plan, short_option
    from trm_ml_mm.experiments.run import (
        cache_features,
        read_validation,
        run_grid,
    )
    from trm_ml_mm.experiments.tables import markdown, setting_name
    from trm_ml_mm.utils.io import write_text
    searched = [entry.split('=', 1) for entry in args.search]
    if any(len(entry) < 2 for entry in searched):
        sys.exit(f'--search takes key=value,value,..., got {args.search}.')
    variants = [
        tuple(f'{key}={value}' for (key, _), value in zip(searched, values))
        for values in itertools.product(
            *(values.split(',') for _, values in searched))
    ]
    data = () if args.scene_set is None else (f'scene_set={args.scene_set}', )
    jobs = [
        job._replace(variant=variant) for variant in variants
        for job in plan([args.config], args.known, args.seeds, [data])
    ]
    if args.features:
        cache_features(jobs, args.features, args.views, args.cfg_options)
    run_grid(jobs, args.out, Path(__file__).with_name('train.py'),
             args.processes, args.cfg_options, args.features)
    found = {job: read_validation(job, args.out) for job in jobs}
    if None in found.values():
        sys.exit('Some runs failed; see the messages above.')

    def row(variant):
        return [statistics.fmean(
            value for job, value in found.items()
            if (job.variant, job.known) == (variant, known))
            for known in args.known]

    ranked = sorted(variants, reverse=True,
                    key=lambda v: statistics.fmean(row(v)))
    lines = [[Path(args.config).stem, *map(setting_name, args.known), 'mean']]
    for variant in ranked:
        values = row(variant)
        lines.append([
            ', '.join(map(short_option, variant)),
            *(f'{v:.2f}' for v in [*values, statistics.fmean(values)])
        ])
    text = markdown(lines)
    name = '_'.join([Path(args.config).stem,
                     *map(short_option, args.search)])
    write_text(Path(args.out, f'{name}.md'), text)
    print(text)


if __name__ == '__main__':
    main()
