"""Reading annotation files: what is wrong is said with the file's name."""
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, List, Tuple, Union


def existing(path: Union[str, Path], what: str, advice: str) -> Path:
    """The path, if there is a file or folder.

    Raises:
        FileNotFoundError: Otherwise; "{what} {path} does not exist; {advice}."
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f'{what} {path} does not exist; {advice}.')
    return path


def read_text(path: Union[str, Path], what: str,
              advice: str = 'set data_root to its folder') -> str:
    """Text of a UTF-8 file, with or without a byte order mark.

    Args:
        path: The file.
        what: What the file is, for messages: 'image list'.
        advice: What to do where it is missing.

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


@contextmanager
def replacing(path: Union[str, Path]) -> Iterator[Path]:
    """Write beside a file and rename into its place, so that a kill leaves
    the old content or the new."""
    path = Path(path)
    fresh = path.with_name(f'{path.name}.{os.getpid()}.new')
    yield fresh
    os.replace(fresh, path)


def read_json(path: Union[str, Path], what: str, **kwargs) -> Any:
    """Content of a JSON file.

    Raises:
        ValueError: If it is cut off or no JSON; with line and column.
    """
    text = read_text(path, what, **kwargs)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f'{path} line {error.lineno} column {error.colno} is not valid '
            f'JSON ({error.msg}): the {what} is cut off or damaged; download '
            'or write it again.') from error
