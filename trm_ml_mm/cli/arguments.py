"""Arguments that several tools have in common.

Nothing heavy is imported here, so that ``--help`` answers at once.
"""
import argparse
import os
from typing import Optional, Sequence, Union

from trm_ml_mm.utils.mmengine_private import OptionAction


def add_config(parser: argparse.ArgumentParser, nargs=None) -> None:
    """The config file, and overrides of its entries."""
    parser.add_argument('config', nargs=nargs, help='config file')
    add_cfg_options(parser)


class ConfigOptions(OptionAction):
    """MMEngine's parser of options, which also keeps the words as they were
    given, in ``given_options``: for the command that a tool proposes next."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        given = [*namespace.given_options, *values]
        super().__call__(parser, namespace, values, option_string)
        namespace.given_options = given


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(given_options=[])
    parser.add_argument(
        '--cfg-options', nargs='+', action=ConfigOptions,
        help='override config entries: epochs=20 lr=5e-4 '
        'train_dataloader.dataset.known=0.5')


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """How several processes find each other."""
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none')
    # torchrun sets LOCAL_RANK; older launchers pass it as an argument.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)


def parse(parser: argparse.ArgumentParser,
          argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Parse the command line; pass the rank on to MMEngine."""
    args = parser.parse_args(argv)
    if hasattr(args, 'local_rank'):
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def setting(text: str) -> Union[float, str]:
    """A label setting: a proportion, or the name of a rule or file."""
    try:
        return float(text)
    except ValueError:
        return text
