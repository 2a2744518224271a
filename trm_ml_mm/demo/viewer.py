"""What the page says about one image."""
from functools import lru_cache
from typing import List, Optional, Sequence, Tuple

import numpy as np

from trm_ml_mm.apis import LoadedModel, MultiLabelInferencer, with_classes
from trm_ml_mm.datasets.images import read_image
from trm_ml_mm.models.heads.base import has_maps
from trm_ml_mm.visualization.overlays import draw_region

NEW = ' (new)'  # after the name of a class that the model was not trained on
KEPT = 8  # models of other classes, of the users of the page


class Viewer:
    """Labels of an image, by a trained model and by the words of new classes.

    Args:
        loaded: The model.
        device: Default: the GPU, if there is one.
    """

    def __init__(self, loaded: LoadedModel, device: Optional[str] = None):
        self.loaded = loaded
        self.predict = MultiLabelInferencer(loaded, device=device)
        self.has_maps = has_maps(loaded.model.head)
        self.is_calibrated = self.predict.calibration is not None
        self.of_classes = lru_cache(KEPT)(self._of_classes)

    def _of_classes(self, names: Tuple[str, ...]) -> MultiLabelInferencer:
        return MultiLabelInferencer(
            with_classes(self.loaded, names),
            device=str(self.predict.model.data_preprocessor.device))

    def add_class(self, text: str, added: Sequence[str]) -> Tuple[str, ...]:
        """The new classes of a user, with one more.

        Raises:
            ValueError: If the model knows it already, or cannot read it.
        """
        name = ' '.join(text.split())
        if name in self.predict.classes:
            raise ValueError(f'The model was trained on "{name}": it is among '
                             'its labels.')
        self.of_classes((*added, name))
        return (*added, name)

    def look(self, path: str, added: Sequence[str] = ()) -> List[dict]:
        """Every label of an image: those of
        :class:`~trm_ml_mm.apis.MultiLabelInferencer`, and of new classes.

        Raises:
            ValueError: If the image cannot be read.
        """
        result, = self.predict(path, maps=self.has_maps)
        labels = result['labels']
        if added:
            result, = self.of_classes(tuple(added))(path, maps=self.has_maps)
            labels = labels + [dict(label, name=label['name'] + NEW)
                               for label in result['labels']]
        return sorted(labels, key=lambda label: -label['score'])

    def region(self, path: str, label: dict) -> np.ndarray:
        """The image, and where a label was seen in it: ``(H, W, 3)`` RGB. A
        head that looks at the whole image gives the image alone."""
        image = read_image(path)[..., ::-1]
        return draw_region(image, label if self.has_maps else None)


def reaches(label: dict, threshold: Optional[float]) -> bool:
    """Whether a label is present at a threshold; None: at that of its
    class."""
    return label['present'] if threshold is None else (
        label['score'] >= threshold)
