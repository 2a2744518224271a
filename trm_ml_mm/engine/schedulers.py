"""A warm-up that short trainings survive."""
from mmengine.optim import LinearLR

from trm_ml_mm.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class WarmupLR(LinearLR):
    """MMEngine's ``LinearLR``, over at least two iterations.

    With few batches per epoch, a warm-up of some epochs can round to less.
    ``LinearLR`` then stops with an error, or never raises the rate: the whole
    training would run at ``start_factor`` times the rate.

    The options are those of ``mmengine.optim.LinearLR``.
    """

    @classmethod
    def build_iter_from_epoch(cls, *args, begin=0, end, epoch_length,
                              **kwargs):
        """From epochs to iterations; called for
        ``convert_to_iter_based=True``."""
        end = max(end, begin + 2 / epoch_length)
        return super().build_iter_from_epoch(
            *args, begin=begin, end=end, epoch_length=epoch_length, **kwargs)
