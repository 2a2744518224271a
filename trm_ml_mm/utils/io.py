"""Read and write small files: every error names the file and what to do."""
import errno
import json
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import (
    Any,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
    Union,
)


def existing(path: Union[str, Path], what: str, advice: str) -> Path:
    """Return the path if there is a file or folder.

    Raises:
        FileNotFoundError: Otherwise; "{what} {path} does not exist; {advice}."
    """
    path = Path(path)
    if not os.path.exists(path):  # False also for a name that cannot be one
        raise FileNotFoundError(f'{what} {path} does not exist; {advice}.')
    return path


def read_text(path: Union[str, Path], what: str,
              advice: str = 'set data_root to its folder') -> str:
    """Read a UTF-8 file, with or without a byte order mark.

    Args:
        path: The file.
        what: What the file is, for error messages: 'image list'.
        advice: What to do if it is missing.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not UTF-8, or empty.
    """
    content = existing(path, what, advice).read_bytes()
    try:
        text = content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = content[:error.start].count(b'\n') + 1
        raise ValueError(f'{path} line {line} is not UTF-8 text: save the '
                         'file in that encoding.') from error
    if not text.strip():
        raise ValueError(f'The {what} {path} is empty.')
    return text


def numbered_lines(path: Union[str, Path], what: str,
                   **kwargs) -> List[Tuple[int, str]]:
    """(Number, stripped line) of :func:`read_text`, without blank lines."""
    lines = read_text(path, what, **kwargs).splitlines()
    return [(number, line.strip()) for number, line in enumerate(lines, 1)
            if line.strip()]


def read_lines(path: Union[str, Path], what: str, **kwargs) -> List[str]:
    """The lines of :func:`numbered_lines`."""
    return [line for _, line in numbered_lines(path, what, **kwargs)]


def read_json(path: Union[str, Path], what: str, drop: Sequence[str] = (),
              **kwargs) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        what: What the file is, for error messages.
        drop: Entries of objects, wherever they are, that are not needed: they
            are forgotten at once, and take no memory.
        **kwargs: See :func:`read_text`.

    Raises:
        ValueError: If it is cut off or not JSON; with line and column.
    """
    text = read_text(path, what, **kwargs)

    def without(entry: dict) -> dict:
        for name in drop:
            entry.pop(name, None)
        return entry

    try:
        return json.loads(text, object_hook=without if drop else None)
    except json.JSONDecodeError as error:
        raise ValueError(
            f'{path} line {error.lineno} column {error.colno} is not valid '
            f'JSON ({error.msg}): the {what} is cut off or damaged; download '
            'or write it again.') from error
    except RecursionError as error:
        raise ValueError(f'{path} is nested too deeply for a {what}.'
                         ) from error


@contextmanager
def atomic_write(path: Union[str, Path],
                 size: Optional[int] = None) -> Iterator[Path]:
    """Write a temporary file next to ``path``, then rename it to ``path``.

    A kill or a power cut leaves the old content or the new content, never a
    part. If the block raises, the old content stays and the temporary file is
    removed. The only way this package writes a file it may have to read again.

    Args:
        path: Where the file goes.
        size: In bytes, if it is known; for the message about a full disk.

    Yields:
        The temporary file to write to.

    Raises:
        OSError: If the disk is full; names the file and the room that is left.
    """
    path = Path(path)
    fresh = path.with_name(f'.{path.name}.{os.getpid()}.part')
    try:
        yield fresh
        with open(fresh, 'r+b') as file:
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            error.errno, 'the disk is full (or your quota): '
            f'{free / 1e6:.1f} MB are free, and this file needs '
            f'{"more" if size is None else f"{size / 1e6:.1f} MB"}. What it '
            'was before stays. Make room, then give the same command again '
            '(a training with --resume)', str(path)) from error
    finally:
        fresh.unlink(missing_ok=True)
    _sync_folder(path.parent)


@contextmanager
def atomic_folder(path: Union[str, Path]) -> Iterator[Path]:
    """Fill a temporary folder next to ``path``, then rename it to ``path``,
    which must not exist. A kill leaves no folder of this name, and the next
    call removes what it left.

    Yields:
        The temporary folder.
    """
    path = Path(path)
    fresh = path.with_name(f'.{path.name}.part')
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        yield fresh
        os.replace(fresh, path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    _sync_folder(path.parent)


def write_text(path: Union[str, Path], text: str) -> None:
    """Write a UTF-8 text file by :func:`atomic_write`."""
    with atomic_write(path) as fresh:
        fresh.write_text(text, encoding='utf-8')


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the file system can
    (some network file systems cannot)."""
    if os.name != 'posix':
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
