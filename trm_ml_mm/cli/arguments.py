"""What the command line tools have in common.

Nothing heavy is imported here, so that ``--help`` answers at once.
"""
import argparse
import os
import sys
import traceback
import warnings
from functools import wraps
from pathlib import Path
from typing import Callable, Optional, Sequence, Union

from mmengine.logging import MMLogger

from trm_ml_mm.utils.errors import root_cause
from trm_ml_mm.utils.mmengine_private import OptionAction
from trm_ml_mm.utils.screen import Screen, short_screen

PACKAGE = str(Path(__file__).parents[1])


def command(main: Callable) -> Callable:
    """Let a command end with the sentence of an error, and status 2.

    That holds for errors that this package raises, and for those of the
    operating system (a folder that cannot be written to, a full disk). Any
    other error is a mistake in a program, and shows its traceback; so does
    ``--debug`` with all of them.
    """
    @wraps(main)
    def run(*arguments):
        # mmcv-lite lacks operators that nothing here uses.
        warnings.filterwarnings('ignore', 'Fail to import')
        try:
            if '--verbose' in sys.argv:
                return main(*arguments)
            with short_screen():
                return main(*arguments)
        except KeyboardInterrupt:
            sys.exit('Interrupted.')
        except Exception as error:
            cause = root_cause(error)
            if '--debug' in sys.argv or not is_for_the_user(cause):
                raise
            # A run's log may go to the same terminal.
            sys.stdout.flush()
            print(sentence(cause), file=sys.stderr)
            sys.exit(2)

    return run


def is_for_the_user(error: BaseException) -> bool:
    """Whether an error's sentence says what to do."""
    if isinstance(error, OSError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, (ValueError, ImportError)) and bool(frames) and (
        frames[-1].filename.startswith(PACKAGE))


def sentence(error: BaseException) -> str:
    """The words of an error, without its number."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f'{error.filename}: {error.strerror}'
    return str(error)


def add_config(parser: argparse.ArgumentParser, nargs=None) -> None:
    """The config file, and overrides of its entries."""
    parser.add_argument(
        'config', nargs=nargs,
        help="config file, or the name of one of the package's")
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
    parser.add_argument('--debug', action='store_true',
                        help='show the traceback of an error')
    parser.add_argument('--verbose', action='store_true',
                        help='show everything that goes to the log file')
    args = parser.parse_args(argv)
    if hasattr(args, 'local_rank'):
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if Screen.current is not None:  # what is logged before there is a run
        Screen.current.replace_stream(MMLogger.get_current_instance())
    return args


def setting(text: str) -> Union[float, str]:
    """A label setting: a proportion, or the name of a rule or file."""
    try:
        return float(text)
    except ValueError:
        return text


def add_table_columns(parser) -> None:
    """What the columns of a table are; of a parser, or a group in it."""
    parser.add_argument('--image-column', default='image',
                        help='column of image paths')
    parser.add_argument('--ignore-columns', nargs='+', default=[],
                        metavar='COLUMN', help='columns that are no classes')


def columns_of(args: argparse.Namespace):
    """The columns of :func:`add_table_columns`."""
    from trm_ml_mm.labels import TableColumns
    return TableColumns(args.image_column, ignored=tuple(args.ignore_columns))


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """A trained model: its checkpoint, and what may be needed beside it."""
    parser.add_argument('--checkpoint', required=True,
                        help='checkpoint of a training')
    add_model(parser)


def add_model(parser: argparse.ArgumentParser) -> None:
    """What may be needed beside a checkpoint."""
    parser.add_argument(
        '--config', help='config it was trained with; only needed for a '
        'checkpoint that does not describe its model')
    parser.add_argument(
        '--weights', help='file of the CLIP, if it is not where it was in '
        'training')
    parser.add_argument('--device', help='default: the GPU, if there is one')
