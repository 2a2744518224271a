"""CheXpert: X-rays whose reports leave findings open."""
import csv
from pathlib import Path, PurePosixPath
from typing import Dict, List

from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN, ImageNames, TableColumns
from trm_ml_mm.labels.table import table_rows
from trm_ml_mm.registry import DATASETS
from trm_ml_mm.utils.checks import check_choice
from trm_ml_mm.utils.io import numbered_lines

from .base import MultiLabelDataset

FINDINGS = (
    'No Finding', 'Enlarged Cardiomediastinum', 'Cardiomegaly',
    'Lung Opacity', 'Lung Lesion', 'Edema', 'Consolidation', 'Pneumonia',
    'Atelectasis', 'Pneumothorax', 'Pleural Effusion', 'Pleural Other',
    'Fracture', 'Support Devices')
PATH, VIEW = 'Path', 'Frontal/Lateral'
OTHERS = 'Sex', 'Age', VIEW, 'AP/PA'
VIEWS = 'Frontal', 'Lateral'
ADVICE = 'set data_root to the folder that holds train.csv and valid.csv'
POLICIES = dict(unknown=UNKNOWN, present=PRESENT, absent=ABSENT)


@DATASETS.register_module()
class CheXpert(MultiLabelDataset):
    """CheXpert, 223,414 training and 234 validation images, 14 findings.

    Folder, as the official download creates it, small or not::

        data_root/                      CheXpert-v1.0-small, or CheXpert-v1.0
          train.csv, valid.csv
          train/patient00001/study1/view1_frontal.jpg
          valid/...

    The tables begin their paths with the name of this folder, which is left
    out: the folder may have another name.

    In the tables 1.0 is present, 0.0 absent, -1.0 mentioned as uncertain (it
    is not this package's -1), and blank not mentioned.

    Args:
        ann_file: 'train.csv' or 'valid.csv'. Images keep its order.
        data_root: The folder.
        uncertain: What an uncertain finding counts as: 'unknown' (U-Ignore of
            the CheXpert paper, arXiv 1901.07031), 'present' (U-Ones) or
            'absent' (U-Zeros).
        blank: What a finding that is not mentioned counts as: 'unknown',
            which is what the table says, or 'absent', as most papers do.
        view: 'all', or 'frontal' alone.
        **kwargs: See :class:`MultiLabelDataset`.

    Raises:
        ValueError: If an option is unknown; with file and line, if the header
            is another one, a cell has another value, or an image is listed
            twice.
        FileNotFoundError: If the table is missing, or an image of it.
    """

    METAINFO = dict(classes=FINDINGS)

    def __init__(self,
                 ann_file: str,
                 data_root: str = '',
                 uncertain: str = 'unknown',
                 blank: str = 'unknown',
                 view: str = 'all',
                 **kwargs):
        check_choice(tuple(POLICIES), uncertain=uncertain)
        check_choice(('unknown', 'absent'), blank=blank)
        check_choice(('all', 'frontal'), view=view)
        self.view = view
        uncertain, blank = POLICIES[uncertain], POLICIES[blank]
        self.values = {'1.0': PRESENT, '1': PRESENT, '0.0': ABSENT,
                       '0': ABSENT, '-1.0': uncertain, '-1': uncertain,
                       '': blank}
        super().__init__(ann_file=ann_file, data_root=data_root, **kwargs)

    def load_data_list(self) -> List[dict]:
        check_header(self.ann_file, self.view)
        rows = table_rows(self.ann_file, TableColumns(image=PATH), ADVICE)
        place = {name: c for c, name in enumerate(next(rows).cells)}
        names = ImageNames(self.image_folder(),
                           must_exist=self.on_error == 'raise',
                           is_image=self.is_image)
        data = []
        for row in rows:
            where = f'{self.ann_file} line {row.line}'
            cells = {name: row.cells[c] for name, c in place.items()}
            if cells.get(VIEW, VIEWS[0]) not in VIEWS:
                raise ValueError(f'{where}, column "{VIEW}" has '
                                 f'"{cells[VIEW][:40]}", expected '
                                 f'{" or ".join(VIEWS)}.')
            labels = self._labels(cells, where)
            if self.view == 'frontal' and cells[VIEW] != VIEWS[0]:
                continue
            data.append(dict(
                img_path=names.path(inner_path(cells[PATH]), where),
                gt_positive=[c for c, v in enumerate(labels) if v == PRESENT],
                gt_negative=[c for c, v in enumerate(labels) if v == ABSENT]))
        return data

    def _labels(self, cells: Dict[str, str], where: str) -> List[int]:
        """Values of the findings, in {PRESENT, ABSENT, UNKNOWN}."""
        for name in FINDINGS:
            if cells[name] not in self.values:
                raise ValueError(
                    f'{where}, column "{name}" has the value '
                    f'"{cells[name][:40]}", expected 1.0 (present), 0.0 '
                    '(absent), -1.0 (uncertain) or blank.')
        return [self.values[cells[name]] for name in FINDINGS]


def check_header(path: str, view: str) -> None:
    """Refuse another table.

    Args:
        path: The table.
        view: Of :class:`CheXpert`: 'frontal' needs a column.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column lacks, or is not one of CheXpert.
    """
    number, line = numbered_lines(path, 'CheXpert table', advice=ADVICE)[0]
    header = [cell.strip() for cell in next(csv.reader([line]))]
    needed = (PATH, *FINDINGS, *([VIEW] if view == 'frontal' else []))
    missing = [name for name in needed if name not in header]
    strange = [name for name in header
               if name not in (PATH, *OTHERS, *FINDINGS)]
    if missing or strange:
        what = (f'has no column "{missing[0]}"' if missing else
                f'has the column "{strange[0][:40]}"')
        raise ValueError(f'{path} line {number} {what}: it is not the header '
                         f'of a CheXpert table, which is {PATH}, '
                         f'{", ".join(OTHERS)} and {len(FINDINGS)} findings.')


def inner_path(path: str) -> str:
    """A path of a table, from the folder of the download on."""
    parts = PurePosixPath(path).parts
    if parts and parts[0].startswith('CheXpert-v1.0'):
        parts = parts[1:]
    return str(Path(*parts)) if parts else ''
