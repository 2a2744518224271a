"""Evaluate what a training ends with, and write the run record."""
import logging
import os
import re
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import (
    Collection,
    Dict,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
)

import torch
from mmengine.dist import broadcast_object_list
from mmengine.evaluator import Evaluator
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop
from rich.console import Console
from rich.table import Table

from trm_ml_mm.datasets import (
    find_masks,
    has_three_values,
    known_labels_of,
    training_matrix,
)
from trm_ml_mm.evaluation.metrics import MultiLabelAP
from trm_ml_mm.evaluation.per_class import (
    find_per_class,
    per_class_rows,
    per_class_table,
    scored_classes,
    write_per_class,
)
from trm_ml_mm.evaluation.run_record import (
    BEST,
    LAST,
    ZERO_SHOT_DENSE,
    ZERO_SHOT_GLOBAL,
    ResultRow,
    RunRecord,
    title,
    write_record,
)
from trm_ml_mm.models import CLIPPromptBackbone, ZeroShotHead
from trm_ml_mm.registry import HOOKS
from trm_ml_mm.utils.screen import near, say
from trm_ml_mm.utils.versions import code_version, library_versions

from ..checkpoint import read_checkpoint
from ..loops import VALIDATED
from .partial_label import check_classes, reference_names

HEADLINE = ('mAP', 'CF1', 'OF1')
OPTIMISTIC = ('The validation set has images of the test set: the figures of '
              'the best epoch,\nwhich was picked on them, are optimistic.\n')
ZERO_SHOT_LEVELS = {ZERO_SHOT_GLOBAL: 'global', ZERO_SHOT_DENSE: 'dense'}


@HOOKS.register_module()
class ReportHook(Hook):
    """After training: evaluate the last epoch, the best epoch and zero-shot
    CLIP on the test set. After every test: write the table of classes.

    The last epoch is the result. The best epoch was picked on the validation
    set; if that contains images of the test set, as in most papers, its row
    says so. ``test_results.json`` in the work dir is the
    :class:`~trm_ml_mm.evaluation.RunRecord`. ``per_class.csv`` next to the log
    has AP and number of labels of each class.

    Args:
        zero_shot: Evaluate CLIP without training too, from the same forward
            pass.
        per_class: Print the table of classes too.
    """

    priority = 'LOWEST'

    def __init__(self, zero_shot: bool = True, per_class: bool = False):
        self.zero_shot = zero_shot
        self.per_class = per_class
        self.rows: List[ResultRow] = []  # after training
        self.loader = self.evaluator = None  # of the test set
        self.validated = None  # the epoch or iteration of the last validation

    def before_train(self, runner) -> None:
        """Open the test set now, so that an error in it shows before the
        training and not after it."""
        if runner.cfg.get('test_dataloader') is None:
            return
        self.validated = runner.message_hub.get_info(VALIDATED)  # if resumed
        self.loader = runner.build_dataloader(
            runner.cfg.test_dataloader, seed=runner.seed)
        self.evaluator = runner.build_evaluator(runner.cfg.test_evaluator)
        check_classes(self.loader.dataset, reference_names(runner), 'test')

    def after_val_epoch(self, runner, metrics: Optional[dict] = None) -> None:
        if self.loader is not None:
            self.validated = progress(runner)[1]

    def after_train(self, runner) -> None:
        if self.loader is None:
            return
        unit, now = progress(runner)
        if (runner.val_loop is not None and self.validated != now
                and now >= runner.train_loop.val_begin):
            # Killed between its last checkpoint and the validation of it.
            runner.val_loop.run()
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        rule = next((metric.scored for metric in self.evaluator.metrics
                     if isinstance(metric, MultiLabelAP)), 'positive')
        zero_shot = {
            kind: (ZeroShotHead(level), MultiLabelAP(scored=rule))
            for kind, level in (ZERO_SHOT_LEVELS.items()
                                if self._has_zero_shot(model) else ())
        }
        with averaged(runner):
            last = evaluate(model, self.loader, self.evaluator,
                            zero_shot.values())
        count = len(self.loader.dataset)
        self.rows = [
            result_row(kind, metric.evaluate(count), [metric])
            for kind, (_, metric) in zero_shot.items()
        ]
        self.rows.append(result_row(LAST, last, self.evaluator.metrics,
                                    unit=unit, number=now))
        self._write_classes(runner, self.evaluator.metrics)
        self._write(runner, model)  # even if the best epoch fails
        best = self._best(runner, model, now, last)
        if best is not None:
            number, metrics = best
            self.rows.append(result_row(
                BEST, metrics, self.evaluator.metrics, unit=unit, number=number,
                picked_on='test' if self._picked_on_test(runner) else 'val'))
            self._write(runner, model)
        self._print(runner, model, count)

    def _has_zero_shot(self, model) -> bool:
        """Whether the model knows what CLIP says without training."""
        backbone = getattr(model, 'backbone', None)
        return (self.zero_shot and isinstance(backbone, CLIPPromptBackbone)
                and not model.with_neck
                and backbone.text is not None and backbone.frozen)

    def _best(self, runner, model, now: int,
              last: dict) -> Optional[Tuple[int, dict]]:
        """(Epoch or iteration, metrics) of the checkpoint that was best on the
        validation set; the main rank reads it for all ranks."""
        saved = [None]
        path = best_checkpoint(runner)
        if runner.rank == 0 and path is not None:
            try:
                # Its state_dict has the averaged weights (EMA) already.
                saved[0] = read_checkpoint(path)['state_dict']
            except (OSError, ValueError) as error:
                print_log(f'The best epoch is not reported: {error}',
                          logger='current', level=logging.WARNING)
        broadcast_object_list(saved)
        if saved[0] is None:
            return None
        number = int(re.search(r'(\d+)\.pth$', path).group(1))
        if number == now:
            return number, last
        kept = {k: v.clone() for k, v in model.state_dict().items()}
        model.load_state_dict(saved[0])
        metrics = evaluate(model, self.loader, self.evaluator)
        model.load_state_dict(kept)
        return number, metrics

    def _picked_on_test(self, runner) -> bool:
        """Whether the validation set has images of the test set."""
        images = [
            {data.get_data_info(i).get('img_path') for i in range(len(data))}
            for data in (runner.val_dataloader.dataset, self.loader.dataset)
        ]
        return bool(images[0] & images[1])

    def after_test_epoch(self, runner, metrics: Optional[dict] = None) -> None:
        self._write_classes(runner, runner.test_loop.evaluator.metrics)
        if runner.rank == 0 and 'calibrated/CF1' in (metrics or {}):
            say(f'\n{render(thresholds_table(metrics))}')

    def _write_classes(self, runner, metrics) -> None:
        table = find_per_class(metrics)
        if runner.rank != 0 or table is None:
            return
        classes = next(m.dataset_meta['classes'] for m in metrics
                       if m.dataset_meta)
        rows = per_class_rows(classes, table)
        path = Path(runner.log_dir, 'per_class.csv')
        write_per_class(path, rows)
        text = render(per_class_table(rows)) if self.per_class else ''
        say(f'{text}AP and number of labels of each class: {near(str(path))}')

    def _write(self, runner, model) -> None:
        if runner.rank != 0:
            return
        dataset = runner.train_dataloader.dataset
        write_record(runner.work_dir, RunRecord(
            head=name_of_head(model),
            config=os.path.basename(runner.cfg.filename or ''),
            seed=runner.seed,
            known_labels=known_labels_of(dataset),
            versions=library_versions(),
            code=code_version(),
            validation=last_validation(runner),
            rows=self.rows,
            command=getattr(runner, 'command', None),  # MMEngine's has none
            training_labels=count_labels(dataset)))

    def _print(self, runner, model, count: int) -> None:
        if runner.rank != 0:
            return
        scored = scored_classes(self.evaluator.metrics)
        only = f', {scored.count} of {scored.among} classes' if (
            scored and scored.partial) else ''
        table = Table(title=f'Test set, {count} images{only} (percent)')
        table.add_column('method')
        for name in HEADLINE:
            table.add_column(name, justify='right')
        for row in self.rows:
            table.add_row(
                title(row, name_of_head(model)),
                *(f'{row.metrics[n]:.2f}' if n in row.metrics else '-'
                  for n in HEADLINE))
        last = runner.message_hub.get_info('last_ckpt')
        warning = OPTIMISTIC if any(
            row.picked_on == 'test' for row in self.rows) else ''
        say(f'\n{render(table)}{warning}Checkpoint: '
            f'{last and near(last)}')


def result_row(kind: str, metrics: Dict[str, float], evaluated: Sequence,
               **facts) -> ResultRow:
    """A row of the run record, with the classes that its mAP is the mean of."""
    scored = scored_classes(evaluated)
    if scored is not None:
        facts.update(scored=scored.count, class_list=scored.class_list)
    return ResultRow(kind, without_prefix(metrics), **facts)


def thresholds_table(metrics: Dict[str, float]) -> Table:
    """What calibrated thresholds and probabilities change in a test."""
    table = Table(title='What calibration changes (percent)')
    table.add_column('')
    names = ('CP', 'CR', 'CF1', 'OP', 'OR', 'OF1')
    for name in (*names, 'ECE'):
        table.add_column(name, justify='right')
    for what, prefix, error in (('as trained', 'multi-label', 'ECE_sigmoid'),
                                ('calibrated', 'calibrated', 'ECE')):
        values = [metrics.get(f'{prefix}/{name}') for name in names]
        table.add_row(what, *('-' if value is None else f'{value:.2f}'
                              for value in (
                                  *values, metrics[f'calibrated/{error}'])))
    return table


def count_labels(dataset) -> Optional[Dict[str, int]]:
    """Labels of a training set by their value; None: it has other labels."""
    if not (find_masks(dataset) or has_three_values(dataset)):
        return None
    found = training_matrix(dataset).summary()
    return dict(present=int(found.positive.sum()),
                absent=int(found.negative.sum()),
                unknown=int(found.unknown.sum()))


def name_of_head(model) -> str:
    """Class of a classifier's head; of the classifier, if it has none."""
    return type(getattr(model, 'head', model)).__name__


def without_prefix(metrics: Dict[str, float]) -> Dict[str, float]:
    """'multi-label/mAP' -> 'mAP'. Of several metrics with the same name, those
    under another prefix keep it."""
    short = Counter(name.split('/')[-1] for name in metrics)
    return {
        name if short[name.split('/')[-1]] > 1
        and not name.startswith('multi-label/') else name.split('/')[-1]: value
        for name, value in metrics.items()
    }


def last_validation(runner) -> Dict[str, float]:
    """Metrics of the latest validation; empty if there was none."""
    scalars = runner.message_hub.log_scalars
    return without_prefix({
        name.removeprefix('val/'): value.current()
        for name, value in scalars.items()
        if name.startswith('val/') and name.count('/') == 2})


def progress(runner) -> Tuple[str, int]:
    """('epoch' or 'iteration', number of finished ones)."""
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        return 'iteration', runner.iter
    return 'epoch', runner.epoch


def best_checkpoint(runner) -> Optional[str]:
    """Path of the checkpoint with the best mAP, if there is one."""
    for key in ('best_ckpt', 'best_ckpt_multi-label/mAP'):
        path = runner.message_hub.get_info(key)
        if path is not None:
            return path
    return None


def render(table: Table) -> str:
    """A rich table as text, for the log."""
    # In a notebook, a captured console would display an empty block.
    console = Console(width=78, force_jupyter=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


@contextmanager
def averaged(runner) -> Iterator[None]:
    """Within the block the model has its averaged weights, if EMA is on."""
    hooks = [h for h in runner.hooks if isinstance(h, EMAHook)]
    for hook in hooks:
        hook.before_test_epoch(runner)
    yield
    for hook in hooks:
        hook.after_test_epoch(runner)


@torch.no_grad()
def evaluate(model, loader, evaluator: Evaluator,
             zero_shot: Collection[Tuple[ZeroShotHead, MultiLabelAP]] = ()
             ) -> dict:
    """Metrics of the model over a loader.

    Args:
        model: The classifier.
        loader: Of the test set.
        evaluator: Of the test set.
        zero_shot: Heads and metrics that are evaluated too, from the same
            forward pass of the backbone.
    """
    model.eval()
    evaluator.dataset_meta = loader.dataset.metainfo
    for _, metric in zero_shot:
        metric.dataset_meta = evaluator.dataset_meta
    for batch in loader:
        data = model.data_preprocessor(batch)
        images, samples = data['inputs'], data['data_samples']
        if zero_shot:
            feats = model.backbone(images, pooled=True)
            for head, metric in zero_shot:
                predicted = head.predict(feats, samples)
                metric.process(None, [sample.to_dict()
                                      for sample in predicted])
            samples = model.head.predict(feats, samples)
        else:
            samples = model.predict(images, samples)
        evaluator.process(samples, batch)
    return evaluator.evaluate(len(loader.dataset))
