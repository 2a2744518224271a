"""A run on the screen: what it is, how far it is, how good it is."""
import logging
from typing import Dict, Optional

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from trm_ml_mm.evaluation.per_class import scored_classes
from trm_ml_mm.registry import HOOKS
from trm_ml_mm.utils.mmengine_private import built_loop
from trm_ml_mm.utils.screen import Screen, near, say

from .pseudo_labels import PseudoLabelQualityHook
from .training_time import is_validated

REFRESH = 10  # steps between two looks at the loss
HEADLINE = ('mAP', 'CF1', 'OF1')


@HOOKS.register_module()
class ScreenHook(Hook):
    """Say what is trained on what, one line for each epoch, and show a bar
    with epoch, loss, mAP and time left where there is a terminal.

    The commands add it; with --verbose MMEngine's own lines stand instead.
    """

    priority = 'VERY_LOW'

    def __init__(self):
        self.bar = self.task = None
        self.shown: Dict[str, float] = {}  # of the last validation
        self.told = False

    def before_train(self, runner) -> None:
        if runner.rank != 0:
            return
        for line in (data_line, model_line, log_line):
            say(line(runner))
        if runner.iter:
            say(f'Going on after {place(runner)}.')
        self._open('Training', runner.max_iters, runner.iter)

    def before_test(self, runner) -> None:
        if runner.rank == 0:
            images = len(runner.test_dataloader.dataset)
            say(f'Test on {images} images. {log_line(runner)}')
            self._open('Testing', len(runner.test_dataloader), 0)

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None) -> None:
        if self.bar is None:
            return
        words = {}
        if runner.iter % REFRESH == 0:
            loss = runner.message_hub.get_scalar('train/loss')
            figures = [f'loss {loss.mean(REFRESH):.3f}']
            if 'mAP' in self.shown:
                figures.append(f'mAP {self.shown["mAP"]:.2f}')
            words = dict(figures='  '.join(figures))
        self.bar.update(self.task, completed=runner.iter + 1,
                        description=place(runner, within=True), **words)

    def after_test_iter(self, runner, batch_idx, data_batch=None,
                        outputs=None) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=batch_idx + 1)

    def after_train_epoch(self, runner) -> None:
        validated = built_loop(runner, 'val') is not None and is_validated(
            runner.train_loop, runner.epoch + 1, runner.max_epochs)
        if runner.rank == 0 and not validated:
            say(self.epoch_line(runner, place(runner, within=True), {}))

    def after_val_epoch(self, runner, metrics: Optional[dict] = None) -> None:
        if runner.rank != 0:
            return
        self.shown = {name.split('/')[-1]: value
                      for name, value in (metrics or {}).items()
                      if name.startswith('multi-label/')}
        if built_loop(runner, 'train') is not None and self.task is not None:
            self._say_what_counts(runner.val_loop.evaluator.metrics)
            say(self.epoch_line(runner, place(runner), self.shown))

    def after_train(self, runner) -> None:
        loop = runner.train_loop
        if getattr(loop, 'stop_training', False) and (
                runner.iter < runner.max_iters) and runner.rank == 0:
            say(f'Stopped after {place(runner)}: the validation has not '
                'become better for some time.')
        self._close()

    def after_test_epoch(self, runner, metrics: Optional[dict] = None) -> None:
        if runner.rank != 0 or not metrics:
            return
        own = {name.split('/')[-1]: value for name, value in metrics.items()
               if name.startswith('multi-label/')}
        shown = {name: own[name] for name in HEADLINE if name in own}
        scored = scored_classes(runner.test_loop.evaluator.metrics)
        only = f'  (mAP of {scored})' if scored and scored.partial else ''
        say('  '.join(f'{name} {value:.2f}' for name, value in
                      (shown or metrics).items()) + only)

    def after_test(self, runner) -> None:
        self._close()

    def after_run(self, runner) -> None:
        self._close()

    def epoch_line(self, runner, when: str, metrics: Dict[str, float]) -> str:
        """Loss, metrics of the validation, pseudo-labels."""
        scalars = runner.message_hub.log_scalars
        steps = len(runner.train_dataloader)
        parts = [when]
        if 'train/loss' in scalars:
            parts.append(f'loss {scalars["train/loss"].mean(steps):.3f}')
        parts += [f'{name} {metrics[name]:.2f}' for name in HEADLINE
                  if name in metrics]
        made = [scalars[f'train/pseudo_{kind}'].mean(steps)
                if f'train/pseudo_{kind}' in scalars else 0.
                for kind in ('positive', 'negative')]
        if any(made):
            right = next((hook.latest_quality for hook in runner.hooks if
                          isinstance(hook, PseudoLabelQualityHook)), {})
            parts.append('pseudo ' + ', '.join(
                f'{sign}{100 * ratio:.0f}%' + (
                    f' ({100 * right[f"{kind}_precision"]:{digits}}% right)'
                    if right else '')
                for sign, kind, ratio, digits in zip(
                    '+-', ('positive', 'negative'), made, ('.0f', '.1f'))))
        return '  '.join(parts)

    def _say_what_counts(self, metrics) -> None:
        """Once: a mean over few classes looks like one over all."""
        scored = scored_classes(metrics)
        if scored and scored.partial and not self.told:
            say(f'mAP is the mean of {scored.count} of {scored.among} classes: '
                f'of the others, the validation set has {scored.lacking}.')
        self.told = True

    def _open(self, what: str, total: int, done: int) -> None:
        self._close()
        self.task = 0
        screen = Screen.current
        if screen is None or not screen.console.is_terminal:
            return
        self.bar = Progress(
            TextColumn('{task.description}'), BarColumn(),
            TaskProgressColumn(), TextColumn('{task.fields[figures]}'),
            TimeRemainingColumn(), console=screen.console, transient=True)
        self.task = self.bar.add_task(what, total=total, completed=done,
                                      figures='')
        self.bar.start()
        screen.bar = self.bar

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
        self.bar = self.task = None


def place(runner, within: bool = False) -> str:
    """'Epoch 3/10', or 'Step 300/1000' of a training that counts steps.

    Args:
        within: An epoch or step under way counts.
    """
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        return f'Step {runner.iter + within}/{runner.max_iters}'
    return f'Epoch {runner.epoch + within}/{runner.max_epochs}'


def data_line(runner) -> str:
    """How many images, classes and labels there are."""
    images = len(runner.train_dataloader.dataset)
    statistics = getattr(getattr(bare(runner), 'head', None),
                         'label_statistics', None)
    text = f'Data: {images} images to train on'
    if statistics is not None and int(statistics.counts.images):
        negative, positive, total = statistics.counts
        classes = len(positive)
        known = int(negative.sum() + positive.sum())
        text += (f', {classes} classes; {known} of {int(total) * classes} '
                 f'labels known ({known / (int(total) * classes):.1%}), '
                 f'{int(positive.sum())} of them present')
    val = built_loop(runner, 'val')
    if val is not None:
        text += f'; {len(val.dataloader.dataset)} images to validate on'
    return text + '.'


def model_line(runner) -> str:
    """The tower, and what is learned."""
    model = bare(runner)
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    backbone = getattr(model, 'backbone', None)
    name = getattr(backbone, 'arch', None)
    tower = f'CLIP {name}' if name else type(backbone).__name__
    frozen = backbone is not None and not any(
        p.requires_grad for p in backbone.parameters())
    return (f'Model: {tower}{", frozen" if frozen else ""}; '
            f'{type(getattr(model, "head", model)).__name__}; '
            f'{learned} parameters are learned.')


def log_line(runner) -> str:
    """Where everything else is written."""
    paths = [handler.baseFilename for handler in runner.logger.handlers
             if isinstance(handler, logging.FileHandler)]
    if not paths:
        return ''
    return f'Log, with config and environment: {near(paths[0])}'


def bare(runner):
    """The model without its wrapper."""
    return runner.model.module if is_model_wrapper(runner.model) else (
        runner.model)
