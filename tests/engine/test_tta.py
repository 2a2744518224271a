import mmcv
import pytest
import torch
from mmengine.config import Config
from mmpretrain.structures import DataSample

from trm_ml_mm.engine.tta import use_tta, views_of
from trm_ml_mm.evaluation import average_precision
from trm_ml_mm.models import MultiLabelTTA


@pytest.mark.parametrize('scales', [[], [1., 1.25]])
def test_views_are_averaged_as_in_a_loop(small_run, scales):
    runner = small_run(train=False, tta=scales)
    model = runner.model
    got = runner.test()
    assert isinstance(runner.model, MultiLabelTTA)

    logits, targets = [], []
    for item in runner.test_dataloader.dataset:
        image = item['inputs'][0].permute(1, 2, 0).numpy()  # as it is
        views = []
        for scale in scales or [1.]:
            side = int(96 * scale + .5)
            sized = torch.from_numpy(mmcv.imresize(image, (side, side)))
            for view in (sized, sized.flip(1)):
                data = model.data_preprocessor(dict(
                    inputs=[view.permute(2, 0, 1)],
                    data_samples=[item['data_samples'][0]]))
                with torch.no_grad():
                    views.append(model(**data, mode='tensor')[0])
        logits.append(torch.stack(views).mean(0))
        targets.append(item['data_samples'][0].gt_score)
    expected = average_precision(torch.stack(logits), torch.stack(targets))
    assert got['multi-label/mAP'] == pytest.approx(
        100 * expected.nanmean().item(), abs=1e-3)


def test_a_resize_of_the_pipeline_takes_the_scales():
    pipeline = [dict(type='LoadImageFromFile'),
                dict(type='Resize', scale=(448, 448)),
                dict(type='CenterCrop', crop_size=400), dict(type='PackInputs')]
    load, views = views_of(pipeline, [1, .5])
    assert load == pipeline[0] and pipeline[1]['scale'] == (448, 448)
    sizes, crop, flips, pack = views['transforms']
    assert [size['scale'] for size in sizes] == [(448, 448), (224, 224)]
    assert crop == [pipeline[2]] and pack == [pipeline[3]]
    assert [flip['prob'] for flip in flips] == [0, 1]
    *_, views = views_of([dict(type='Resize', scale=7), dict(type='P')], [2])
    assert views['transforms'][0][0]['scale'] == 14


def config(**entries):
    return Config(dict(test_dataloader=dict(dataset=dict(
        type='A', pipeline=[dict(type='PackInputs')])), **entries))


def test_own_views_of_a_config_win():
    own = [dict(type='B')]
    cfg = config(tta_pipeline=own, tta_model=dict(type='C'))
    use_tta(cfg)
    assert cfg.test_dataloader.dataset.pipeline == own
    assert cfg.custom_hooks[-1].tta_cfg.type == 'C'


@pytest.mark.parametrize('entries, scales, message', [
    (dict(feature_cache='x'), [], 'needs images'),
    (dict(), [1, 0], 'positive scales'),
    (dict(tta_pipeline=[dict(type='B')]), [1.], 'a tta_pipeline of its own'),
    (dict(test_dataloader=None), [], 'needs a test set')])
def test_what_cannot_be_augmented_is_refused(entries, scales, message):
    cfg = config()
    cfg.merge_from_dict(entries)
    with pytest.raises(ValueError, match=message):
        use_tta(cfg, scales)


def test_heads_without_logits_are_averaged_too():
    class Head(torch.nn.Module):
        thr, topk = .5, None

    class Model(torch.nn.Module):
        head = Head()

        def test_step(self, data):
            raise NotImplementedError

    logits = torch.tensor([[-2., 1.], [4., -5.]])
    views = [DataSample().set_pred_score(row.sigmoid()) for row in logits]
    merged, = MultiLabelTTA(Model()).merge_preds([views])
    assert torch.allclose(merged.pred_score, logits.mean(0).sigmoid())
    assert merged.pred_label.tolist() == [0]
