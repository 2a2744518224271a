"""The runner: checkpoints are data, and none of them is lost."""
from itertools import permutations
from pathlib import Path
from typing import Optional, Sequence

from mmengine.dist import broadcast_object_list, master_only
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, load_state_dict
from mmpretrain.evaluation import AveragePrecision

from trm_ml_mm.evaluation import MultiLabelAP, MultiLabelF1
from trm_ml_mm.models.class_entries import ClassChange, carry_classes
from trm_ml_mm.registry import RUNNERS
from trm_ml_mm.utils.mmengine_private import (
    forget_namesake,
    format_configs_once,
    is_resuming,
    set_loaded,
    set_start_file,
    start_file,
)
from trm_ml_mm.utils.screen import Screen, say

from .checkpoint import (
    checkpoints_in,
    keep_to_folder,
    latest_checkpoint,
    load_learned,
    read_checkpoint,
    scheduler_change,
    trained_classes,
)
from .hooks.partial_label import reference_names

format_configs_once()
SHOWN = 20  # class names in a line of the log


def listed(names: Sequence[str]) -> str:
    """The first names of many, for a sentence."""
    more = len(names) - SHOWN
    return (': ' if names else '') + ', '.join(names[:SHOWN]) + (
        f' and {more} more' if more > 0 else '')


def check_metric_names(metrics: Sequence[BaseMetric]) -> None:
    """Refuse two metrics that report under the same names, if one is of this
    package.

    Raises:
        ValueError: Says how to tell them apart.
    """
    # MMPretrain's AveragePrecision reports "mAP" too.
    for own, same in ((MultiLabelAP, (MultiLabelAP, AveragePrecision)),
                      (MultiLabelF1, (MultiLabelF1, ))):
        for one, other in permutations(metrics, 2):
            if isinstance(one, own) and isinstance(other, same) and (
                    one.prefix == other.prefix):
                raise ValueError(
                    f'Two metrics report under the prefix "{one.prefix}" and '
                    f'the same names, one of them {type(other).__name__}: '
                    "give one a prefix of its own, such as prefix='other'.")


@RUNNERS.register_module()
class SafeRunner(Runner):
    """MMEngine's ``Runner`` that trusts no checkpoint and overwrites none.

    MMEngine's own runs Python from a checkpoint when it resumes (the config
    text in it), takes addresses on the internet for a checkpoint, and removes
    whatever file a checkpoint calls the previous best. Here:

    * A checkpoint is a local file of tensors and plain types. Its config text
      is dropped before anything reads it.
    * What a checkpoint says about other checkpoints counts only if they lie
      in the work dir.
    * ``resume`` without a file takes the latest checkpoint that is whole.
    * A run does not resume under another learning rate schedule.
    * A new training does not start in a work dir that has checkpoints.
    * Two metrics do not report under the same names.
    * A test needs every learned weight.

    Raises:
        ValueError: In those cases; with what to do.
    """

    description = None  # of the model, for checkpoints; None: read the config
    command = None  # line that started the run; None: another program did
    is_test = False  # every learned weight must be in the checkpoint

    def train(self):
        if not is_resuming(self) and checkpoints_in(self.work_dir):
            raise ValueError(
                f'{self.work_dir} has checkpoints of an earlier training: '
                'continue it with --resume, take another --work-dir, or '
                'remove the folder.')
        self._remove_fragments()
        super().dump_config()
        return super().train()

    def test(self) -> dict:
        self.is_test = True
        return super().test()

    def val(self) -> dict:
        self.is_test = True
        return super().val()

    def build_logger(self, *args, **kwargs) -> MMLogger:
        forget_namesake(self)  # the logger is what a run builds first
        logger = super().build_logger(*args, **kwargs)
        if Screen.current is not None:
            Screen.current.replace_stream(logger)
        return logger

    def build_train_loop(self, loop):
        """A loop over epochs is one that resumes anywhere."""
        if isinstance(loop, dict) and loop.get('by_epoch'):
            loop = dict(loop, type='trm_ml_mm.ResumableTrainLoop')
            loop.pop('by_epoch')
        return super().build_train_loop(loop)

    def build_evaluator(self, evaluator):
        """MMEngine's; it would find the same name twice after the first
        epoch."""
        built = super().build_evaluator(evaluator)
        check_metric_names(built.metrics)
        return built

    def dump_config(self) -> None:
        """Only :meth:`train` writes the config into the work dir: a test must
        not replace the config of the training that it tests."""

    def load_or_resume(self) -> None:
        """As MMEngine's, but finds the latest checkpoint that is whole."""
        if is_resuming(self) and start_file(self) is None:
            found = [str(latest_checkpoint(self.work_dir) or '')
                     if self.rank == 0 else None]
            broadcast_object_list(found)
            if not found[0]:
                self.logger.warning(
                    f'--resume: {self.work_dir} has no checkpoint, so this '
                    'training starts from the beginning.')
                return
            set_start_file(self, found[0])
            super().load_or_resume()
            self._remove_orphans()
        else:
            super().load_or_resume()

    def resume(self, filename: str, *args, **kwargs) -> None:
        """As MMEngine's; anything wrong in the file is a ``ValueError``."""
        try:
            super().resume(filename, *args, **kwargs)
        except (ArithmeticError, AssertionError, AttributeError, LookupError,
                RuntimeError, TypeError) as error:
            raise ValueError(
                f'{filename} cannot be resumed ({type(error).__name__}: '
                f'{error}): it is damaged, or of another model. Resume from '
                'another checkpoint of this training.') from error
        self.logger.info(f'Resumed from {filename}.')

    def load_checkpoint(self,
                        filename: str,
                        map_location='cpu',
                        strict: bool = False,
                        revise_keys: Optional[list] = None) -> dict:
        """Load the weights, and return the rest.

        Args:
            filename: A local file.
            map_location: Not used: files are read on the CPU.
            strict: Not used: tests are strict.
            revise_keys: Not used. (All three are of MMEngine's method.)
        """
        checkpoint = read_checkpoint(filename)
        checkpoint['meta'].pop('config', None)  # MMEngine would execute it
        if is_resuming(self):
            for count in ('epoch', 'iter'):
                if type(checkpoint['meta'].get(count)) is not int:
                    raise ValueError(f'{filename} does not say of which '
                                     f'{count} it is: load_from={filename} '
                                     'starts a training from its weights.')
            for line in keep_to_folder(checkpoint, self.work_dir):
                self.logger.warning(line)
            change = scheduler_change(checkpoint, self.param_schedulers)
            if change:
                raise ValueError(
                    f'{filename} was trained under another learning rate '
                    f'schedule ({change}): resume with the settings it was '
                    'started with. For a longer training start a new one, '
                    f'or one from these weights: load_from={filename}.')
        model = self.model
        if is_model_wrapper(model):
            model = model.module
        if not (self.is_test or is_resuming(self)):
            self._carry_classes(model, checkpoint, filename)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        if self.is_test or is_resuming(self):
            load_learned(model, checkpoint['state_dict'], filename)
        else:  # fine-tuning: what does not fit is logged
            load_state_dict(model, checkpoint['state_dict'],
                            logger=self.logger)
        set_loaded(self)
        self.logger.info(f'Loaded {filename}.')
        return checkpoint

    def _carry_classes(self, model, checkpoint: dict, filename: str) -> None:
        """Fine-tuning: classes of the same name keep what they learned."""
        old, new = trained_classes(checkpoint), reference_names(self)
        if old is None or new is None:
            return
        checkpoint['state_dict'] = carry_classes(
            model, checkpoint['state_dict'], old, new)
        averaged = checkpoint.get('ema_state_dict')  # of an EMAHook
        if isinstance(averaged, dict):
            own = carry_classes(model, {
                key.removeprefix('module.'): value
                for key, value in averaged.items()}, old, new)
            checkpoint['ema_state_dict'] = {
                key: own[key.removeprefix('module.')] for key in averaged}
        kept, fresh, dropped = ClassChange.between(old, new)
        if not fresh and not dropped:
            return
        say(
            f'Fine-tuning from {filename}: {len(kept)} of {len(new)} classes '
            f'keep what they learned{listed(kept)}. {len(fresh)} classes '
            f'start anew{listed(fresh)}. {len(dropped)} classes of the '
            f'checkpoint are not used{listed(dropped)}. What all classes '
            'share is loaded.')

    @master_only
    def _remove_fragments(self) -> None:
        """Remove what a killed run was writing."""
        for path in Path(self.work_dir).glob('.*.part'):
            path.unlink()
            self.logger.info(f'Removed the fragment {path}.')

    @master_only
    def _remove_orphans(self) -> None:
        """Remove best checkpoints that a killed run had replaced, or had not
        yet noted: the epoch of the latter is validated again."""
        kept = {str(path) for name, path in
                self.message_hub.runtime_info.items()
                if name.startswith('best_ckpt')}
        for path in Path(self.work_dir).glob('best_*_[0-9]*.pth'):
            if str(path) not in kept:
                path.unlink()
                self.logger.info(f'Removed {path}, which a later one replaced '
                                 'or will be written again.')
