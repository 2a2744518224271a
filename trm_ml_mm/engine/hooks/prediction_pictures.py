"""Draw what a test predicts."""
from pathlib import Path

from mmengine.hooks import Hook
from mmpretrain.visualization import UniversalVisualizer

from trm_ml_mm.labels import PRESENT
from trm_ml_mm.registry import HOOKS
from trm_ml_mm.utils.checks import check_positive

SHORT_SIDE = 320  # pixels; the names of the classes need room


@HOOKS.register_module()
class PredictionPicturesHook(Hook):
    """Write every ``interval``-th test image with its predicted classes, and
    with those it has, to ``out_dir/<index>_<name>.png``.

    MMPretrain's visualizer draws them; of several ranks, the main one draws
    its share. (MMPretrain's ``VisualizationHook`` would swap red and blue, and
    images of the same name in two folders would replace each other.)

    Args:
        out_dir: Folder of the pictures.
        interval: 1: every image.

    Raises:
        ValueError: If ``interval`` is not positive.
    """

    def __init__(self, out_dir: str, interval: int = 1):
        check_positive(interval=interval)
        self.out_dir, self.interval = Path(out_dir), interval
        self.visualizer = UniversalVisualizer()

    def before_test_epoch(self, runner) -> None:
        self.visualizer.dataset_meta = (
            runner.test_dataloader.dataset.metainfo)

    def after_test_iter(self, runner, batch_idx, data_batch=None,
                        outputs=None) -> None:
        for image, sample in zip(data_batch['inputs'], outputs):
            if sample.sample_idx % self.interval:
                continue
            name = Path(sample.get('img_path', 'image')).stem
            sample = sample.to('cpu')
            if 'gt_score' in sample:  # the visualizer draws indices
                present = sample.gt_score == PRESENT
                sample.set_gt_label(present.nonzero()[:, 0])
            image = image.flip(0).permute(1, 2, 0).cpu().numpy()  # BGR -> RGB
            self.visualizer.visualize_cls(
                image.astype('uint8'), sample,
                resize=None if min(image.shape[:2]) >= SHORT_SIDE
                else SHORT_SIDE,
                out_file=str(self.out_dir / f'{sample.sample_idx}_{name}.png'))
