"""What a run ends with: tables on the screen, the same figures in files."""
import json
import logging
import pickle
import re
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

import torch
import torch.nn.functional as F
from mmengine.dist import broadcast_object_list
from mmengine.evaluator import Evaluator
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop
from rich.console import Console
from rich.table import Table

from trm_ml_mm.datasets.files import replacing
from trm_ml_mm.evaluation.metrics import MultiLabelAP
from trm_ml_mm.evaluation.per_class import (
    find_per_class,
    per_class_rows,
    per_class_table,
    write_per_class,
)
from trm_ml_mm.models.backbones import CLIPFeatures, CLIPPromptBackbone
from trm_ml_mm.registry import HOOKS

from .partial_label import check_classes, reference_names

HEADLINE = ('mAP', 'CF1', 'OF1')


def zero_shot_scores(feats: CLIPFeatures) -> Dict[str, torch.Tensor]:
    """What CLIP says without any training.

    Args:
        feats: Of :class:`CLIPPromptBackbone`, with the pooled embedding.

    Returns:
        ``(B, C)`` cosine similarities with "a photo of a {class}.": 'global',
        of the image embedding; 'dense', the largest over places.
    """
    places = F.normalize(feats.dense.flatten(2).float(), dim=1)
    return {
        'global': F.normalize(feats.pooled.float(), dim=-1) @ feats.anchor.T,
        'dense': torch.einsum('bdl,cd->bcl', places, feats.anchor).amax(-1),
    }


@HOOKS.register_module()
class ReportHook(Hook):
    """After training: evaluate the last epoch on the test set, and beside it
    the best one and zero-shot CLIP. After every test: the table of classes.

    The last epoch is the result. The best one was picked on the validation
    set; where that is the test set itself, as in most papers, its row says
    so. ``test_results.json`` in the work dir has every row with every metric;
    ``per_class.csv`` beside the log has AP and support of each class.

    Args:
        zero_shot: Also evaluate CLIP without training, from the same forward
            pass.
        per_class: Print the table of classes too.
    """

    priority = 'LOWEST'

    def __init__(self, zero_shot: bool = True, per_class: bool = False):
        self.zero_shot = zero_shot
        self.per_class = per_class
        self.rows: List[dict] = []  # after training
        self.loader = self.evaluator = None  # of the test set
        self.validated = None  # the epoch or iteration of the last validation

    def before_train(self, runner) -> None:
        """Open the test set now: what is wrong with it is said before the
        training, not after."""
        if runner.cfg.get('test_dataloader') is None:
            return
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
        compare = (self.zero_shot and not model.with_neck
                   and isinstance(model.backbone, CLIPPromptBackbone)
                   and model.backbone.text is not None
                   and model.backbone.frozen)
        name = type(model.head).__name__
        rivals = {
            f'zero-shot CLIP, {kind}': MultiLabelAP()
            for kind in (('global', 'dense') if compare else ())
        }
        with averaged(runner):
            last = evaluate(model, self.loader, self.evaluator, rivals)
        count = len(self.loader.dataset)
        self.rows = [
            {'method': method, unit: None, **short(rival.evaluate(count))}
            for method, rival in rivals.items()
        ]
        self.rows.append({'method': f'{name}, last {unit}', unit: now,
                          **short(last)})
        self._classes(runner, self.evaluator.metrics)
        self._write(runner)  # whatever becomes of the best one
        best = self._best(runner, model, unit, now, last)
        if best is not None:
            number, metrics = best
            picked = 'TEST' if self._picked_on_test(runner) else 'validation'
            self.rows.append({
                'method': f'{name}, best {unit} ({number}), picked on the '
                f'{picked} set', unit: number,
                **short(metrics)})
            self._write(runner)
        self._print(runner, count)

    def _best(self, runner, model, unit: str, now: int, last: dict):
        """(epoch or iteration, metrics) of the checkpoint that validated
        best; the main rank reads it for all."""
        saved = [None]
        path = best_checkpoint(runner)
        if runner.rank == 0 and path is not None:
            try:
                # Averages (EMA) stand in its place already.
                saved[0] = torch.load(path, map_location='cpu',
                                      weights_only=True)['state_dict']
            except (OSError, pickle.UnpicklingError) as error:
                print_log(
                    f'The best checkpoint {path} is not reported, as it '
                    f'cannot be read ({type(error).__name__}): put '
                    'PlainCheckpointHook into custom_hooks.',
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
        """Whether validation saw images of the test set."""
        seen = [
            {data.get_data_info(i).get('img_path') for i in range(len(data))}
            for data in (runner.val_dataloader.dataset, self.loader.dataset)
        ]
        return bool(seen[0] & seen[1])

    def after_test_epoch(self, runner, metrics: Optional[dict] = None) -> None:
        self._classes(runner, runner.test_loop.evaluator.metrics)

    def _classes(self, runner, metrics) -> None:
        table = find_per_class(metrics)
        if runner.rank != 0 or table is None:
            return
        classes = next(m.dataset_meta['classes'] for m in metrics
                       if m.dataset_meta)
        rows = per_class_rows(classes, table)
        path = Path(runner.log_dir, 'per_class.csv')
        write_per_class(path, rows)
        text = render(per_class_table(rows)) if self.per_class else ''
        print_log(f'{text}AP and support of each class: {path}',
                  logger='current')

    def _write(self, runner) -> None:
        if runner.rank != 0:
            return
        known = runner.train_dataloader.dataset.metainfo.get('known_labels')
        rows = [{k: None if v != v else v for k, v in row.items()}
                for row in self.rows]
        content = dict(known_labels=known, seed=runner.seed,
                       validation=last_validation(runner), rows=rows)
        with replacing(Path(runner.work_dir, 'test_results.json')) as fresh:
            fresh.write_text(json.dumps(content, indent=1) + '\n')

    def _print(self, runner, count: int) -> None:
        if runner.rank != 0:
            return
        table = Table(title=f'Test set, {count} images (percent)')
        table.add_column('method')
        for name in HEADLINE:
            table.add_column(name, justify='right')
        for row in self.rows:
            table.add_row(
                row['method'],
                *(f'{row[n]:.2f}' if n in row else '-' for n in HEADLINE))
        last = runner.message_hub.get_info('last_ckpt')
        print_log(f'\n{render(table)}Checkpoint: {last}', logger='current')


def short(metrics: Dict[str, float]) -> Dict[str, float]:
    """'multi-label/mAP' -> 'mAP'."""
    return {name.split('/')[-1]: value for name, value in metrics.items()}


def last_validation(runner) -> Dict[str, float]:
    """Metrics of the latest validation; empty, if there was none."""
    scalars = runner.message_hub.log_scalars
    return short({name: value.current() for name, value in scalars.items()
                  if name.startswith('val/') and name.count('/') == 2})


def progress(runner) -> Tuple[str, int]:
    """('epoch' or 'iteration', how many of them were trained)."""
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
    console = Console(width=78)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


@contextmanager
def averaged(runner) -> Iterator[None]:
    """Within it the model has its averaged weights, where EMA is on."""
    hooks = [h for h in runner.hooks if isinstance(h, EMAHook)]
    for hook in hooks:
        hook.before_test_epoch(runner)
    yield
    for hook in hooks:
        hook.after_test_epoch(runner)


@torch.no_grad()
def evaluate(model,
             loader,
             evaluator: Evaluator,
             rivals: Optional[Dict[str, MultiLabelAP]] = None) -> dict:
    """Metrics of the model over a loader; ``rivals`` are fed with zero-shot
    scores from the same forward pass."""
    model.eval()
    evaluator.dataset_meta = loader.dataset.metainfo
    for batch in loader:
        data = model.data_preprocessor(batch)
        images, samples = data['inputs'], data['data_samples']
        if rivals:
            feats = model.backbone(images, pooled=True)
            samples = model.head.predict(feats, samples)
            for metric, scores in zip(rivals.values(),
                                      zero_shot_scores(feats).values()):
                metric.process(None, [
                    dict(sample.to_dict(), pred_score=s, pred_logit=s)
                    for s, sample in zip(scores, samples)
                ])
        else:
            samples = model.predict(images, samples)
        evaluator.process(samples, batch)
    return evaluator.evaluate(len(loader.dataset))
