"""Train a config: python tools/train.py configs/trm_ml_scenes.py"""
import argparse
import sys

from trm_ml_mm.cli.arguments import add_config, add_launcher, command, parse
from trm_ml_mm.cli.next_command import next_command


def parse_args():
    parser = argparse.ArgumentParser(description='Train a model')
    add_config(parser)
    parser.add_argument('--work-dir', help='where logs and checkpoints go')
    parser.add_argument(
        '--resume', nargs='?', const='auto',
        help='continue from this checkpoint; without a path, from the latest '
        'one in the work dir')
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision (GPU)')
    parser.add_argument(
        '--no-validate', action='store_true', help='train without validating')
    parser.add_argument(
        '--auto-scale-lr', action='store_true',
        help='scale the learning rate with the batch size of all ranks')
    add_launcher(parser)
    return parse(parser)


@command
def main():
    args = parse_args()
    from trm_ml_mm.engine import TrainingTimeHook, build_runner, close
    from trm_ml_mm.utils.screen import near
    runner = build_runner(
        args.config,
        work_dir=args.work_dir,
        options=args.cfg_options,
        launcher=args.launcher,
        amp=args.amp,
        resume=args.resume,
        validate=not args.no_validate,
        scale_lr=args.auto_scale_lr)
    runner.command = next_command('train', *sys.argv[1:])
    for hook in runner.hooks:
        if isinstance(hook, TrainingTimeHook):
            hook.cache_command = next_command(
                'cache_features', args.config, given=args.given_options)
    runner.train()
    last = runner.message_hub.get_info('last_ckpt')
    if runner.rank == 0 and last is not None:
        print('Predict: ' + next_command('predict', 'IMAGE', '--checkpoint',
                                         near(last)))
    del runner
    close()


if __name__ == '__main__':
    main()
