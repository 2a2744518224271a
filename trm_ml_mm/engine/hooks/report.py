"""The table at the end of a run."""
from typing import Dict

import torch
import torch.nn.functional as F
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from rich.console import Console
from rich.table import Table

from trm_ml_mm.evaluation.metrics import MultiLabelAP
from trm_ml_mm.models.backbones import CLIPFeatures, CLIPPromptBackbone
from trm_ml_mm.registry import HOOKS


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
    """After training: evaluate on the test set, and print the headline
    figures beside zero-shot CLIP's.

    Args:
        zero_shot: Also evaluate CLIP without training, from the same forward
            pass.
    """

    priority = 'LOWEST'

    def __init__(self, zero_shot: bool = True):
        self.zero_shot = zero_shot
        self.rows: Dict[str, dict] = {}  # method -> metrics, after training

    @torch.no_grad()
    def after_train(self, runner) -> None:
        if runner.cfg.get('test_dataloader') is None:
            return
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        compare = (self.zero_shot and not model.with_neck
                   and isinstance(model.backbone, CLIPPromptBackbone)
                   and model.backbone.text is not None
                   and model.backbone.frozen)
        loader = runner.build_dataloader(
            runner.cfg.test_dataloader, seed=runner.seed)
        evaluator = runner.build_evaluator(runner.cfg.test_evaluator)
        rivals = {'global': MultiLabelAP(), 'dense': MultiLabelAP()}
        averages = [h for h in runner.hooks if isinstance(h, EMAHook)]
        for hook in averages:
            hook.before_test_epoch(runner)
        model.eval()
        for batch in loader:
            data = model.data_preprocessor(batch)
            images, samples = data['inputs'], data['data_samples']
            if compare:
                feats = model.backbone(images, pooled=True)
                samples = model.head.predict(feats, samples)
                for name, scores in zero_shot_scores(feats).items():
                    rivals[name].process(None, [
                        dict(sample.to_dict(), pred_score=score,
                             pred_logit=score)
                        for score, sample in zip(scores, samples)
                    ])
            else:
                samples = model.predict(images, samples)
            evaluator.process(samples, batch)
        for hook in averages:
            hook.after_test_epoch(runner)
        count = len(loader.dataset)
        rows = self.rows = {}
        if compare:
            for name, metric in rivals.items():
                rows[f'zero-shot CLIP, {name}'] = metric.evaluate(count)
        rows[f'{type(model.head).__name__}, last epoch'] = evaluator.evaluate(
            count)
        self._print(runner, rows, count)

    def _print(self, runner, rows: Dict[str, dict], count: int) -> None:
        if runner.rank != 0:
            return
        table = Table(title=f'Test set, {count} images (percent)')
        table.add_column('method')
        figures = ('mAP', 'CF1', 'OF1')
        for name in figures:
            table.add_column(name, justify='right')
        for method, metrics in rows.items():
            short = {k.split('/')[-1]: v for k, v in metrics.items()}
            table.add_row(
                method,
                *(f'{short[n]:.2f}' if n in short else '-' for n in figures))
        console = Console(width=78)
        with console.capture() as capture:
            console.print(table)
        last = runner.message_hub.get_info('last_ckpt')
        print_log(f'\n{capture.get()}Checkpoint: {last}', logger='current')
