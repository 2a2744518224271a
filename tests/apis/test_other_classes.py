"""A trained model on other classes, by their words."""
import pytest
import torch
from mmengine.logging import MMLogger
from tests_support import ROOT, SMALL, trm_ml

from trm_ml_mm.apis import (
    MultiLabelInferencer,
    load_model,
    with_classes,
)
from trm_ml_mm.datasets.scenes.world import draw
from trm_ml_mm.engine import build_runner
from trm_ml_mm.engine.calibration import KEY
from trm_ml_mm.labels.names import scene_classes

NAMES = list(scene_classes(0))
IMAGES = [draw((0, 'test', i, 96)) for i in range(3)]


def train(folder, options=None, config='trm_ml_scenes.py'):
    options = {**SMALL, 'train_cfg.max_epochs': 1, **(options or {})}
    if 'baselines' in config:
        del options['model.head.prototypes.warmup_images']
    build_runner(str(ROOT / 'configs' / config), work_dir=str(folder / 'run'),
                 options=options).train()
    MMLogger._instance_dict.clear()
    return str(folder / 'run/epoch_1.pth')


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return train(tmp_path_factory.mktemp('trained'))


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """Classes that do not speak of each other."""
    return load_model(train(tmp_path_factory.mktemp('alone'),
                            {'model.head.relations': 0}))


def logits(loaded):
    """``(3, C)``, by name."""
    samples = MultiLabelInferencer(loaded)(IMAGES, return_datasamples=True)
    values = torch.stack([sample.pred_logit for sample in samples])
    return dict(zip(loaded.description.classes, values.T))


def test_kept_classes_keep_what_they_learned(alone):
    with torch.no_grad():  # a training of one epoch hardly moves these
        alone.model.head.bias.normal_()
        alone.model.head.region.query_offset.normal_()
    before = logits(alone)
    some = NAMES[20:3:-2]
    after = logits(with_classes(alone, some))
    assert list(after) == some
    for name in some:
        torch.testing.assert_close(after[name], before[name])


def test_a_new_class_has_nothing_of_its_own(alone):
    """It equals a known class whose own values were never learned."""
    name = NAMES[7]
    stranger = with_classes(with_classes(alone, NAMES[:3]), [name])
    head = alone.model.head
    saved = head.bias.clone(), head.region.query_offset.clone()
    with torch.no_grad():
        head.bias[7] = head.region.query_offset[7] = 0
    expected = logits(alone)[name]
    with torch.no_grad():
        head.bias.copy_(saved[0])
        head.region.query_offset.copy_(saved[1])
    torch.testing.assert_close(logits(stranger)[name], expected)


def test_relations_count_among_kept_classes_only(checkpoint):
    loaded = load_model(checkpoint)
    weight = loaded.model.head.relations.weight
    with torch.no_grad():
        weight.normal_()
    found = with_classes(loaded, [NAMES[5], 'green star', NAMES[2]])
    moved = found.model.head.relations.weight
    assert moved[0, 2] == weight[5, 2] and moved[2, 0] == weight[2, 5]
    assert not moved[1].any() and not moved[:, 1].any()


def test_a_calibration_is_left_behind(checkpoint):
    loaded = load_model(checkpoint)
    loaded = loaded._replace(meta={**loaded.meta, KEY: dict(any='thing')})
    assert KEY not in with_classes(loaded, NAMES[:2]).meta


@pytest.mark.parametrize('names, message', [
    ([], 'at least one class'),
    (['red ring', ' '], 'none may be empty'),
    (['red  ring', 'red ring'], '"red ring" is given twice'),
    (['elephant'], 'never learned the word "elephant"'),
])
def test_bad_names_are_refused(checkpoint, names, message):
    with pytest.raises(ValueError, match=message):
        with_classes(load_model(checkpoint), names)


@pytest.mark.parametrize('config', ['linear_probe', 'query_decoder'])
def test_heads_without_text_are_refused(config, tmp_path):
    path = train(tmp_path, config=f'baselines/{config}.py')
    with pytest.raises(ValueError, match='cannot recognise others'):
        with_classes(load_model(path), ['green star'])


@pytest.mark.parametrize('config', ['query_decoder_text', 'text_pixel',
                                    'text_image'])
def test_heads_with_text_are_not(config, tmp_path):
    path = train(tmp_path, config=f'baselines/{config}.py')
    found = logits(with_classes(load_model(path), ['green star', NAMES[0]]))
    assert list(found) == ['green star', NAMES[0]]
    assert all(torch.isfinite(values).all() for values in found.values())


def test_a_file_without_its_text_tower_is_refused(checkpoint, tmp_path):
    assert trm_ml(['publish', checkpoint, '--out', tmp_path,
                   '--bake-text']) == 0
    path, = tmp_path.glob('*.pth')
    with pytest.raises(ValueError, match='without its text tower'):
        with_classes(load_model(path), ['green star'])


def test_predict_takes_words(checkpoint, tmp_path):
    assert trm_ml(['make-scenes', '--out', tmp_path / 'scenes', '--images',
                   '2']) == 0
    assert trm_ml(['predict', tmp_path / 'scenes/images', '--checkpoint',
                   checkpoint, '--words', 'green star', NAMES[0],
                   '--csv', tmp_path / 'scores.csv']) == 0
    table = (tmp_path / 'scores.csv').read_text().splitlines()
    assert table[0] == f'image,green star,{NAMES[0]}' and len(table) == 3
