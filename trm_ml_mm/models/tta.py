"""Average the predictions of several views of an image."""
from typing import List, Sequence

import torch
from mmengine.model import BaseTTAModel
from mmpretrain.structures import DataSample

from trm_ml_mm.registry import MODELS

from .heads.base import attach_predictions


@MODELS.register_module()
class MultiLabelTTA(BaseTTAModel):
    """Test-time augmentation of a multi-label classifier: the mean of the
    views' logits, and its sigmoid as the score.

    (MMPretrain's ``AverageClsScoreTTA`` averages scores, which tie where
    sigmoids saturate, and leaves the first view's logits in the samples.)

    It is built as MMEngine's ``BaseTTAModel``: ``module`` is the classifier, or
    its config, and ``data_preprocessor`` that of the classifier, if it is a
    config.
    """

    def merge_preds(self, data_samples_list: List[Sequence[DataSample]]
                    ) -> List[DataSample]:
        """One sample for the views of each image."""
        logits = torch.stack([
            torch.stack([view_logits(view) for view in views]).mean(0)
            for views in data_samples_list])
        head = self.module
        head = getattr(head, 'module', head).head  # of several ranks
        return attach_predictions(
            [views[0] for views in data_samples_list], logits.sigmoid(),
            logits, head.thr, head.topk)


def view_logits(sample: DataSample) -> torch.Tensor:
    """``(C,)`` logits of a prediction; from the scores, where a head gives no
    logits."""
    if 'pred_logit' in sample:
        return sample.pred_logit
    return torch.logit(sample.pred_score.float(), eps=1e-6)
