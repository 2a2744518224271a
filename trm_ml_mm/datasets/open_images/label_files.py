"""Read the label files of Open Images: 57 million lines, in chunks.

A label file is CSV with the header ``ImageID,Source,LabelName,Confidence``. An
image is called by 16 hexadecimal digits, here a number of 64 bits; a class by a
machine identifier (MID), such as ``/m/01g317``.
"""
import csv
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator, List, NamedTuple, Optional, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as pacsv

from trm_ml_mm.labels import ABSENT, PRESENT
from trm_ml_mm.utils.io import existing

from .entries import image_id

HEADER = 'ImageID', 'Source', 'LabelName', 'Confidence'
HUMAN = 'verification', 'crowdsource-verification'
MACHINE = 'machine'
CHUNK = 16 << 20  # bytes that are read at once
_DIGITS = np.full(256, 255, np.uint8)
for _text in ('0123456789abcdef', '0123456789ABCDEF'):
    _DIGITS[np.frombuffer(_text.encode(), np.uint8)] = np.arange(16)


class Labels(NamedTuple):
    """K labels of label files, in the order of the lines."""

    images: np.ndarray  # (K,) uint64
    classes: np.ndarray  # (K,) int32
    values: np.ndarray  # (K,) int8, PRESENT or ABSENT
    human: np.ndarray  # (K,) bool; False: a machine says so


def image_numbers(names: pa.Array) -> np.ndarray:
    """IDs of images as numbers, ``(K,)`` uint64.

    Raises:
        WrongLine: If one is not 16 hexadecimal digits; has its position.
    """
    wrong = np.flatnonzero(pc.fill_null(
        pc.not_equal(pc.binary_length(names), 16), True))
    if not len(wrong):
        # All have 16 bytes, which lie one after the other.
        start = 16 * names.offset
        text = np.frombuffer(names.buffers()[2], np.uint8)[
            start:start + 16 * len(names)]
        digits = _DIGITS[text].reshape(-1, 16)
        wrong = np.flatnonzero((digits == 255).any(1))
    if len(wrong):
        raise WrongLine(wrong[0], f'"{names[wrong[0]]}" is no ImageID of 16 '
                        'hexadecimal digits')
    numbers = np.zeros(len(digits), np.uint64)
    for i in range(16):
        numbers = numbers << np.uint64(4) | digits[:, i]
    return numbers


class WrongLine(Exception):
    """Something in a chunk that no label file has.

    Attributes:
        row: Its position in the chunk.
        why: What is wrong.
    """

    def __init__(self, row: int, why: str):
        super().__init__(why)
        self.row, self.why = int(row), why


def read_chunk(batch: pa.RecordBatch, mids: pa.Array, chosen: np.ndarray,
               machine: Optional[float]) -> Labels:
    """The labels in a chunk of lines.

    Args:
        batch: Lines with the columns of the header.
        mids: Of all classes that the data set knows.
        chosen: Number of each of these among the classes of the run; -1: it is
            not one of them.
        machine: Lowest confidence of a machine's label that counts as present;
            None: there may be no label of a machine.

    Raises:
        WrongLine: If a value makes no sense.
    """
    names, sources, classes, confidence = batch.columns
    images = image_numbers(names)
    found = pc.fill_null(pc.index_in(classes, mids), -1).to_numpy()
    if (found < 0).any():
        row = int((found < 0).argmax())
        raise WrongLine(row, f'the class "{classes[row]}" is not in the file '
                        'of class descriptions')
    human = pc.fill_null(pc.is_in(sources, pa.array(HUMAN)), False
                         ).to_numpy(zero_copy_only=False)
    other = ~human & ~pc.fill_null(pc.equal(sources, MACHINE), False
                                   ).to_numpy(zero_copy_only=False)
    if other.any():
        row = int(other.argmax())
        raise WrongLine(row, f'the Source "{sources[row]}" is none of '
                        f'{", ".join((*HUMAN, MACHINE))}')
    if machine is None and not human.all():
        raise WrongLine((~human).argmax(), 'the label is of a machine: set '
                        'machine=0.8, the lowest confidence that counts as '
                        'present, or give the files of human labels alone')
    values = confidence.to_numpy(zero_copy_only=False)
    with np.errstate(invalid='ignore'):
        wrong = ~(np.where(human, (values == 0) | (values == 1),
                           (values >= 0) & (values <= 1)))
    if wrong.any():
        row = int(wrong.argmax())
        raise WrongLine(row, f'the Confidence is {values[row]:g}; of human '
                        'labels it is 0 or 1, of a machine\'s in [0, 1]')
    classes = chosen[found]
    kept = classes >= 0
    if machine is not None:  # less confidence says nothing
        kept &= human | (values >= machine)
    values = np.where(human & (values == 0), ABSENT, PRESENT)[kept]
    return Labels(images[kept], classes[kept].astype(np.int32),
                  values.astype(np.int8), human[kept])


def read_label_file(path: Path, mids: pa.Array, chosen: np.ndarray,
                    machine: Optional[float] = None,
                    progress: Optional[Callable[[int], None]] = None
                    ) -> Iterator[Labels]:
    """The labels of a file, chunk by chunk; see :func:`read_chunk`.

    Args:
        path: The file.
        mids: See :func:`read_chunk`.
        chosen: See :func:`read_chunk`.
        machine: See :func:`read_chunk`.
        progress: Called with the number of bytes that were read so far.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: With file and line, if one is wrong.
    """
    check_header(path)
    line = 2
    with lines_of(path) as (file, reader):
        for batch in reader:
            try:
                yield read_chunk(batch, mids, chosen, machine)
            except WrongLine as error:
                raise ValueError(f'{path} line {line + error.row}: {error.why}.'
                                 ) from error
            line += len(batch)
            if progress is not None:
                progress(file.tell())


@contextmanager
def lines_of(path: Path) -> Iterator[tuple]:
    """An open file, and a reader of its chunks.

    Raises:
        ValueError: With file and line, if a line has too many or too few cells,
            or the confidence is no number.
    """
    types = dict.fromkeys(HEADER[:3], pa.string())
    types[HEADER[3]] = pa.float32()
    with pa.OSFile(str(path)) as file:
        try:
            yield file, pacsv.open_csv(
                file, pacsv.ReadOptions(block_size=CHUNK),
                pacsv.ParseOptions(quote_char=False, ignore_empty_lines=False),
                pacsv.ConvertOptions(column_types=types, null_values=[],
                                     include_columns=list(HEADER)))
        except pa.ArrowInvalid as error:
            raise ValueError(wrong_cells(path) or f'{path}: {error}'
                             ) from error


def wrong_cells(path: Path) -> Optional[str]:
    """What is wrong with the first line that has other cells than a label."""
    with open(path, encoding='utf-8', errors='replace', newline='') as file:
        for number, line in enumerate(file, 1):
            cells = line.rstrip('\r\n').split(',')
            if len(cells) != len(HEADER):
                return (f'{path} line {number} has {len(cells)} cells, '
                        f'expected {len(HEADER)} ({", ".join(HEADER)}): the '
                        'file is cut off or damaged; download it again.')
            try:
                number == 1 or float(cells[3])
            except ValueError:
                return (f'{path} line {number}: the Confidence "{cells[3]}" '
                        'is no number.')
    return None


def check_header(path: Path) -> None:
    """Refuse a file that is no label file.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If its first line is another one.
    """
    existing(path, 'Label file', 'set data_root and ann_file')
    with open(path, encoding='utf-8-sig', errors='replace') as file:
        first = file.readline().rstrip('\r\n')
    if tuple(first.split(',')) != HEADER:
        raise ValueError(f'{path} line 1 is "{first[:80]}", and a label file '
                         f'of Open Images has "{",".join(HEADER)}": set '
                         'ann_file to one, such as '
                         'oidv6-train-annotations-human-imagelabels.csv.')


def find_lines(paths: Sequence[Path], image: int, mid: Optional[str] = None
               ) -> List[str]:
    """File and line of every label of an image, for error messages.

    Args:
        paths: Label files.
        image: Number of the image.
        mid: Only labels of this class.
    """
    found = []
    for path in paths:
        line = 2
        with lines_of(path) as (_, reader):
            for batch in reader:
                same = pc.equal(pc.utf8_lower(batch.column(0)),
                                image_id(image))
                if mid is not None:
                    same = pc.and_(same, pc.equal(batch.column(2), mid))
                found += [f'{path} line {line + row}' for row in
                          np.flatnonzero(same)]
                line += len(batch)
    return found


def read_image_list(path: Path) -> np.ndarray:
    """IDs of images, ``(N,)`` uint64, ascending: of a CSV file with a column
    ``ImageID`` (the official image information), or of a text file with one a
    line (``train/0123456789abcdef`` or without the folder).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: With file and line, if one is no ID or is listed twice.
    """
    existing(path, 'Image list', 'set images')
    with open(path, encoding='utf-8-sig', newline='') as file:
        rows = csv.reader(file)
        header = next(rows, [''])
        column, first, found = 0, 1, []
        if 'ImageID' in header:
            column, first = header.index('ImageID'), 2
        else:
            found = [os.path.basename(header[0])]
        for row in rows:
            if len(row) <= column:
                raise ValueError(f'{path} line {first + len(found)} has no '
                                 'ImageID.')
            found.append(os.path.basename(row[column]))
    try:
        numbers = image_numbers(pa.array(found, pa.string()))
    except WrongLine as error:
        raise ValueError(f'{path} line {first + error.row}: {error.why}.'
                         ) from error
    order = np.argsort(numbers, kind='stable')
    numbers = numbers[order]
    twice = np.flatnonzero(numbers[1:] == numbers[:-1])
    if len(twice):
        raise ValueError(
            f'{path} line {first + order[twice[0] + 1]}: the image '
            f'{image_id(numbers[twice[0]])} is already in line '
            f'{first + order[twice[0]]}; keep one of them.')
    return numbers
