"""Test a checkpoint: python tools/test.py CONFIG CHECKPOINT"""
import argparse
import sys

from trm_ml_mm.cli.arguments import add_config, add_launcher, command, parse


def parse_args():
    parser = argparse.ArgumentParser(
        description='Test a checkpoint on the test set of a config')
    add_config(parser)
    parser.add_argument(
        'checkpoint', nargs='?',
        help='checkpoint file; only zero-shot CLIP needs none')
    parser.add_argument('--work-dir', help='where logs go')
    parser.add_argument(
        '--per-class', action='store_true', help='print every class too')
    parser.add_argument(
        '--tta', nargs='*', type=float, metavar='SCALE',
        help='average over each image and its mirror image, at these scales '
        'of the test size (default: 1)')
    parser.add_argument(
        '--out', metavar='FILE.pkl',
        help="write the predictions, for MMPretrain's analysis tools")
    parser.add_argument(
        '--show-dir', metavar='FOLDER', help='draw the predictions')
    add_launcher(parser)
    return parse(parser)


@command
def main():
    args = parse_args()
    from trm_ml_mm.engine import ReportHook, build_runner, close
    from trm_ml_mm.models import ZeroShotHead
    runner = build_runner(
        args.config,
        work_dir=args.work_dir,
        options=args.cfg_options,
        launcher=args.launcher,
        checkpoint=args.checkpoint,
        train=False,
        tta=args.tta,
        out=args.out,
        show_dir=args.show_dir)
    if args.checkpoint is None and not isinstance(
            getattr(runner.model, 'module', runner.model).head, ZeroShotHead):
        sys.exit('Give a checkpoint: this model has learned nothing yet.')
    reports = [hook for hook in runner.hooks if isinstance(hook, ReportHook)]
    if args.per_class and not reports:
        sys.exit('--per-class needs ReportHook, which prints the table: add '
                 'trm_ml_mm.ReportHook to custom_hooks of the config.')
    for hook in reports:
        hook.per_class |= args.per_class
    runner.test()
    del runner, reports
    close()


if __name__ == '__main__':
    main()
