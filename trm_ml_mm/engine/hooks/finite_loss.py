"""Stop when a loss is not a number any more."""
from typing import Collection, Optional

import torch
from mmengine.dist import all_gather_object, all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from trm_ml_mm.registry import HOOKS


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop a training when a loss is NaN or infinite, on all ranks together.

    The last good checkpoint stays: nothing that is not finite is saved. The
    error names the step, the loss terms and the images of the batch.

    On the CPU the run stops before the optimiser moves. On a GPU it stops
    after that step, where MMEngine waits for the losses anyway, so that the
    check costs no synchronisation of its own.

    Raises:
        FloatingPointError: If a loss, or what is going to be saved, is not
            finite.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner) -> None:
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        self.runner, self.losses = runner, None
        self.listener = model.register_forward_hook(
            self._listen, with_kwargs=True)

    def after_train(self, runner) -> None:
        self.listener.remove()

    def _listen(self, model, inputs: tuple, options: dict, output) -> None:
        if not model.training or not isinstance(output, dict):
            return
        terms = {name: value for name, value in output.items()
                 if isinstance(value, Tensor)}
        if not terms:
            return
        self.losses = terms
        self.images = [
            sample.get('img_path', f'image {i} of the batch')
            for i, sample in enumerate(options.get('data_samples') or [])]
        self.finite = torch.stack([
            value.detach().isfinite().all() for value in terms.values()
        ]).all().int()
        all_reduce(self.finite, op='min')
        if not self.finite.is_cuda:
            self._check()

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None) -> None:
        self._check()

    def _check(self) -> None:
        if self.losses is None:
            return
        losses, self.losses = self.losses, None
        if not self.finite:
            self._stop(losses)

    def _stop(self, losses: dict) -> None:
        wrong = [name for name, value in losses.items()
                 if not value.isfinite().all()]
        found = [entry for entry in all_gather_object((wrong, self.images))
                 if entry[0]]
        terms = sorted({name for names, _ in found for name in names})
        images = [image for _, batch in found for image in batch]
        raise FloatingPointError(
            f'The loss is not finite in step {self.runner.iter + 1} (epoch '
            f'{self.runner.epoch + 1}): {", ".join(terms)}. The last good '
            f'checkpoint in {self.runner.work_dir} stays. Look at the images '
            'of this batch, lower the learning rate, or train without --amp. '
            f'Images: {", ".join(map(str, images))}')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        name = not_finite(checkpoint, {n for n, _ in model.named_parameters()})
        if name is not None:
            raise FloatingPointError(
                f'{name} is not finite after step {runner.iter}, so it is '
                'not saved. The last good checkpoint in '
                f'{runner.work_dir} stays: resume from it without --amp, or '
                'start from it with a lower learning rate (load_from=..., in '
                'another work dir).')


def not_finite(checkpoint: dict, parameters: Collection[str]
               ) -> Optional[str]:
    """The name of a parameter or a state of the optimiser that has NaN or
    infinite values; None if there is none. (In a buffer NaN may mean "none",
    as in the history of the prototypes.)"""
    optimizer = (checkpoint.get('optimizer') or {}).get('state', {})
    tensors = {name: value for name, value in checkpoint['state_dict'].items()
               if name in parameters}
    tensors.update({f'optimizer.{number}.{name}': value
                    for number, state in optimizer.items()
                    for name, value in state.items()})
    for name, value in tensors.items():
        if isinstance(value, Tensor) and value.is_floating_point() and (
                not value.isfinite().all()):
            return name
    return None
