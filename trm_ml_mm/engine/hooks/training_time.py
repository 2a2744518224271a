"""How long a training will take, said after its first steps."""
import time
from statistics import median
from typing import List, NamedTuple, Optional

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop
from torch.utils.data import DataLoader

from trm_ml_mm.models import CLIPPromptBackbone
from trm_ml_mm.registry import HOOKS
from trm_ml_mm.utils.mmengine_private import built_loop
from trm_ml_mm.utils.screen import say

STEPS, SECONDS = 20, 5.  # what is measured: so many steps, or so long
LONG = 600.  # seconds from which on there is advice
EVALUATIONS = 2  # of the test set after training: last and best epoch


class Work(NamedTuple):
    """What is left of a training, on one rank."""

    steps: int
    epochs: int  # 0 if training is counted in steps
    validations: int
    val_images: int  # of one validation
    test_images: int

    def seconds(self, step: float, image: float) -> float:
        """How long it takes.

        Args:
            step: Seconds of a training step.
            image: Seconds of an image in an evaluation.
        """
        images = (self.validations * self.val_images
                  + EVALUATIONS * self.test_images)
        return self.steps * step + images * image


def duration(seconds: float) -> str:
    """In words, as exact as an estimate is."""
    if seconds < 90:
        return f'{seconds:.0f} s' if seconds >= 10 else (
            f'{seconds:.1f} s' if seconds >= 1 else f'{1000 * seconds:.0f} ms')
    minutes = round(seconds / 60)
    if minutes < 90:
        return f'{minutes} min'
    hours, minutes = divmod(minutes, 60)
    return f'{hours} h {minutes:02d} min' if hours < 48 else (
        f'{hours / 24:.1f} days')


@HOOKS.register_module()
class TrainingTimeHook(Hook):
    """Say how long a training will take, and what to do if that is long.

    It times the first steps of the training itself: it computes nothing, draws
    no random number, and takes no batch. After the first validation it says
    again what is left, now with the time of that validation.

    Args:
        cache_command: The command that computes features once; for the advice.
    """

    priority = 'VERY_LOW'
    clock = staticmethod(time.perf_counter)

    def __init__(self, cache_command: Optional[str] = None):
        self.cache_command = cache_command

    def before_train(self, runner) -> None:
        self.ends: List[float] = []  # of the first steps
        # A tool that draws learning rates runs through a stand-in of a loader,
        # with nothing to time.
        self.is_real = isinstance(runner.train_dataloader, DataLoader)
        self.step = None  # seconds, when it has been measured
        self.validation = None  # when one began; 0: it has been measured
        self.start = 0.  # seconds until the first batch of an epoch is there

    def before_train_epoch(self, runner) -> None:
        self.epoch = self.clock()

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if batch_idx == 0 and self.validation is None:
            self.start = self.clock() - self.epoch

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None) -> None:
        if self.step is not None or not self.is_real:
            return
        self.ends.append(self.clock())
        count, spent = len(self.ends) - 1, self.ends[-1] - self.ends[0]
        is_last = runner.iter + 1 == runner.max_iters or (
            batch_idx + 1 == len(runner.train_dataloader))
        if count >= STEPS or count >= 2 and spent >= SECONDS or (
                count and is_last):
            # The first step, with the start of the loader, is not one of them.
            self.step = median(b - a for a, b in zip(self.ends, self.ends[1:]))
            self._say(runner, count)

    def before_val_epoch(self, runner) -> None:
        if self.validation is None and self.step is not None:
            self.validation = self.clock()

    def after_val_epoch(self, runner, metrics=None) -> None:
        if not self.validation:
            return
        spent, self.validation = self.clock() - self.validation, 0
        work = left(runner)
        seconds = work.seconds(self.step, spent / work.val_images) + (
            work.epochs * self.start)
        if runner.rank == 0 and seconds > SECONDS:
            say(f'About {duration(seconds)} to go. A validation takes '
                f'{duration(spent)}.')

    def _say(self, runner, count: int) -> None:
        if runner.rank != 0:
            return
        work = left(runner, in_step=True)
        image = self.step / runner.train_dataloader.batch_size
        backbone = backbone_of(runner)
        is_clip = isinstance(backbone, CLIPPromptBackbone)
        if not (is_clip and backbone.frozen):
            image /= 3  # no backward pass
        seconds = work.seconds(self.step, image)
        text = (f'This training will take about {duration(seconds)}: '
                f'{work.steps} more steps of {duration(self.step)} '
                f'({count} were measured), {work.validations} validations of '
                f'{work.val_images} images, and a test of {work.test_images}.')
        if seconds >= LONG:
            text += self._advice(
                runner, is_clip and backbone.frozen
                and backbone.feature_grid is None, image, work)
        say(text)

    def _advice(self, runner, can_be_cached: bool, image: float,
                work: Work) -> str:
        if can_be_cached:
            images = (len(runner.train_dataloader.dataset) + work.val_images
                      + work.test_images)
            command = self.cache_command or (
                f'python tools/cache_features.py {runner.cfg.filename}')
            return (' Most of that is the frozen tower. To compute its '
                    f'features once, in about {duration(images * image)}, and '
                    'to train from them in much less, as often as you like: '
                    f'{command}')
        if torch.cuda.is_available():
            return ' Fewer epochs take less: epochs=5.'
        return (' A GPU would take much less; so would smaller images '
                '(image_size=224) or fewer epochs (epochs=5).')


def backbone_of(runner):
    """Of the model, without its wrapper; None if it has none."""
    model = runner.model
    return getattr(model.module if is_model_wrapper(model) else model,
                   'backbone', None)


def left(runner, in_step: bool = False) -> Work:
    """What is left of a training.

    Args:
        runner: In a training.
        in_step: Whether ``runner.iter`` does not count the current step yet.
    """
    loop, val = runner.train_loop, built_loop(runner, 'val')
    done = runner.iter + in_step
    by_step = isinstance(loop, IterBasedTrainLoop)
    # Finished and validated; a step under way is followed by its validation.
    now, last = (runner.iter, runner.max_iters) if by_step else (
        runner.epoch, runner.max_epochs)
    validations = 0 if val is None else sum(
        is_validated(loop, number, last)
        for number in range(now + 1, last + 1))
    return Work(
        steps=runner.max_iters - done,
        epochs=0 if by_step else last - now,
        validations=validations,
        val_images=0 if val is None else images_of(val.dataloader),
        test_images=next((images_of(hook.loader) for hook in runner.hooks if
                          getattr(hook, 'loader', None) is not None), 0))


def is_validated(loop, number: int, last: int) -> bool:
    """Whether a validation follows an epoch (or step) of a train loop."""
    return number >= loop.val_begin and (
        number % loop.val_interval == 0 or number == last)


def images_of(loader) -> int:
    """How many images this rank gets from a loader."""
    return min(len(loader) * loader.batch_size, len(loader.dataset))
