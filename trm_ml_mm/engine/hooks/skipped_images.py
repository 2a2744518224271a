"""Count images that could not be read."""
import logging
from pathlib import Path
from typing import List

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.logging import print_log

from trm_ml_mm.registry import HOOKS
from trm_ml_mm.utils.io import write_text


@HOOKS.register_module()
class SkippedImagesHook(Hook):
    """Count and list the images that data sets with ``on_error='skip'``
    skipped, on all workers and ranks.

    After every epoch the log has the number, and ``skipped_images.txt`` in the
    work dir lists the paths.
    """

    def __init__(self):
        self.skipped = set()  # paths, of this rank

    def epoch_state(self) -> List[str]:
        """For a run that is stopped within an epoch."""
        return sorted(self.skipped)

    def set_epoch_state(self, skipped: List[str]) -> None:
        self.skipped = set(skipped)

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None) -> None:
        if not isinstance(data_batch, dict):
            return
        for sample in data_batch.get('data_samples', []):
            self.skipped.update(sample.get('skipped_images', ()))

    def after_train_epoch(self, runner) -> None:
        skipped = sorted(set().union(*all_gather_object(self.skipped)))
        if not skipped or runner.rank != 0:
            return
        path = Path(runner.work_dir, 'skipped_images.txt')
        write_text(path, '\n'.join(skipped) + '\n')
        print_log(
            f'{len(skipped)} unreadable images were skipped and replaced by '
            f'others; their paths are in {path}', logger='current',
            level=logging.WARNING)
