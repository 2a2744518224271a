"""Write a training, or several side by side, as one HTML page."""
import argparse
from pathlib import Path

from .arguments import command, parse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write what a training did as one HTML page that needs '
        'nothing else: results, curves, classes, images')
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR',
                        help='of trainings of your own that have finished: '
                        'their config is loaded')
    parser.add_argument(
        '--out', metavar='FILE',
        help='default: report.html in the first work dir')
    parser.add_argument(
        '--pictures', type=int, default=6,
        help='how many of the best, and of the worst, test images (default: '
        '6)')
    parser.add_argument(
        '--no-model', action='store_true',
        help='only what the work dirs say: predict nothing')
    return parse(parser)


@command
def main() -> None:
    args = parse_args()
    from trm_ml_mm.report import judge, read_run, write_report
    from trm_ml_mm.utils.checks import check_not_negative
    from trm_ml_mm.utils.screen import track
    check_not_negative(**{'--pictures': args.pictures})
    runs = [read_run(folder) for folder in args.work_dirs]
    out = Path(args.out or Path(args.work_dirs[0], 'report.html'))
    judged = [None if args.no_model else judge(
        run, args.pictures, lambda batches, count, run=run: track(
            batches, f'Predicting {run.name}', count)) for run in runs]
    write_report(list(zip(runs, judged)), out)
    print(f'Written: {out}, {out.stat().st_size / 1e6:.1f} MB')
