"""What a person sees of a command; the log file has everything.

MMEngine prints environment, config, hooks, and twenty metrics in a line. A
command of this package shows what was meant for people, and warnings.
"""
import logging
import os
from contextlib import contextmanager
from typing import Iterable, Iterator, Optional

from mmengine.logging import MMLogger
from rich.console import Console

SAID = 'is_said'  # an entry of a log record that is meant for people
# Warnings of MMEngine on its own insides, which no user can change.
NOISE = ('"FileClient" will be deprecated', '"HardDiskBackend" is the alias')


def say(text: str) -> None:
    """Log something that people shall see."""
    MMLogger.get_current_instance().info(text, extra={SAID: True})


def near(path: str) -> str:
    """A path as seen from here, if it lies below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith('..') else relative


class Screen(logging.Handler):
    """Shows log records that were said, and warnings, without their time."""

    current: Optional['Screen'] = None  # None: MMEngine prints everything

    def __init__(self):
        super().__init__()
        self.console = Console(highlight=False, markup=False)
        self.replaced = []  # loggers, and the handlers they had
        self.last = ''
        self.bar = None  # that is moving now

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING and not text.startswith(NOISE):
            text = f'{record.levelname.capitalize()}: {text}'
        elif not getattr(record, SAID, False):
            return
        if text != self.last:  # as of a model that is built several times
            # Lines of a terminal break between words; those of a file, and of
            # a table, do not.
            self.console.print(text, soft_wrap='\n' in text or (
                not self.console.is_terminal))
        self.last = text

    def replace_stream(self, logger: logging.Logger) -> None:
        """Take the place of the logger's own output. Files stay; so does the
        output of ranks other than the main one, which is errors alone."""
        from mmengine.dist import get_rank  # --help needs no torch
        if get_rank() == 0 and self not in logger.handlers:
            self.replaced.append((logger, list(logger.handlers)))
            logger.handlers[:] = [
                self, *(handler for handler in logger.handlers
                        if isinstance(handler, logging.FileHandler))]


def console() -> Console:
    """Where a bar moves, so that what is said stands above it."""
    return Console() if Screen.current is None else Screen.current.console


def track(items: Iterable, what: str, total: Optional[int] = None
          ) -> Iterable:
    """Items, with a bar of how many are done, where there is a terminal."""
    from rich.progress import track  # not needed for --help
    place = console()
    return track(items, what, total, console=place, transient=True,
                 disable=not place.is_terminal)


@contextmanager
def silent_screen() -> Iterator[None]:
    """Runs that are built in this block say nothing: they are steps of a
    larger work, which tells how far it is."""
    before, Screen.current = Screen.current, None
    try:
        yield
    finally:
        Screen.current = before


@contextmanager
def short_screen() -> Iterator[None]:
    """Show what matters, of every run that is built in this block."""
    screen = Screen.current = Screen()
    try:
        yield
    finally:
        Screen.current = None
        if screen.bar is not None:  # an error: give the terminal back
            screen.bar.stop()
        for logger, handlers in screen.replaced:
            logger.handlers[:] = handlers
