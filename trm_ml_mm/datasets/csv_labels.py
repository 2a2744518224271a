"""Your own images, with labels in a CSV file that has blanks."""
from typing import List, Sequence, Union

from trm_ml_mm.labels import (
    ImageNames,
    TableColumns,
    read_classes,
    read_table,
)
from trm_ml_mm.registry import DATASETS

from .base import MultiLabelDataset


@DATASETS.register_module()
class CSVMultiLabel(MultiLabelDataset):
    """Images and labels from a CSV file; blank cells are unknown labels.

    One column per class, 1 present, 0 absent, blank unknown::

        image,dog,cat,red car
        a.jpg,1,0,
        b.jpg,,,1

    or one column of present and one of absent classes, each a list with ';'
    between names; a class in neither column is unknown::

        image,positive,negative
        a.jpg,dog,cat
        b.jpg,red car,

    Args:
        ann_file: The CSV file, UTF-8, with a header line.
        data_root: Folder of all files.
        data_prefix: Folder in it: images are
            ``data_root/data_prefix/<image>``.
        classes: Names, or a file with one name a line. With one column per
            class, the columns and their order (default: as in the header).
            With lists, it is required.
        image_column: Name in the header of the column of images.
        positive_column: The same of the list of present classes.
        negative_column: The same of the list of absent classes.
        separator: Between names in a list.
        ignore_columns: Columns that are not labels.
        **kwargs: See :class:`MultiLabelDataset`.

    Raises:
        ValueError: For an unknown class, a value that is not 1, 0 or blank, a
            line with too few or too many cells, a repeated image, an empty
            file, or another encoding. The message has file and line.
        FileNotFoundError: If the file, or an image of it, is missing.
    """

    def __init__(self,
                 ann_file: str,
                 data_root: str = '',
                 data_prefix: str = '',
                 classes: Union[None, str, Sequence[str]] = None,
                 image_column: str = 'image',
                 positive_column: str = 'positive',
                 negative_column: str = 'negative',
                 separator: str = ';',
                 ignore_columns: Sequence[str] = (),
                 **kwargs):
        self.data_root = data_root
        self.table_options = dict(
            columns=TableColumns(image_column, positive_column,
                                 negative_column, separator,
                                 tuple(ignore_columns)),
            advice='set data_root and ann_file')
        classes = read_classes(self.root_file(ann_file), classes,
                               **self.table_options)
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix,
            metainfo=dict(classes=classes),
            **kwargs)

    def load_data_list(self) -> List[dict]:
        table = read_table(self.ann_file, self.class_names,
                           **self.table_options)
        names = ImageNames(self.image_folder(),
                           must_exist=self.on_error == 'raise',
                           is_image=self.is_image)
        return [
            dict(img_path=names.path(image, table.where(row)),
                 gt_score=table.labels[row])
            for row, image in enumerate(table.images)
        ]
