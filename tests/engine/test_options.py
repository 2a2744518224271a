"""Options do what they say, or are refused."""
import csv

import cv2
import numpy as np
import pytest
import torch
import trees
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from tests_support import ROOT

from trm_ml_mm.datasets import label_matrix
from trm_ml_mm.engine import build_dataset, build_runner, load_config
from trm_ml_mm.evaluation import read_record
from trm_ml_mm.experiments.plan import parse_options
from trm_ml_mm.features import CacheFiller
from trm_ml_mm.models.towers import save_random_weights
from trm_ml_mm.utils.configs import wrapped_datasets

COCO = str(ROOT / 'configs/trm_ml_coco.py')


def coco(**options):
    return load_config(COCO, options)


# Shorthands


def test_epochs_stretch_the_whole_schedule(small_run):
    cfg = coco(epochs=20)
    assert cfg.train_cfg.max_epochs == 20
    warmup, decay = cfg.param_scheduler
    assert (warmup.begin, warmup.end) == (0, 4)
    assert (decay.begin, decay.end, decay.T_max) == (4, 20, 16)
    # Twice the passes, half the rate; a shorter training keeps it.
    rate = coco().optim_wrapper.optimizer.lr
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(rate / 2)
    assert coco(epochs=5).optim_wrapper.optimizer.lr == rate
    for both in (dict(lr=2e-3, epochs=20), dict(epochs=20, lr=2e-3)):
        assert coco(**both).optim_wrapper.optimizer.lr == 2e-3
    runner = small_run({'epochs': 2, 'lr': 5e-4,
                        'train_dataloader.dataset.dataset.num_images': 320})
    runner.train()
    assert runner.epoch == 2
    rates = runner.message_hub.get_scalar('train/lr').data[0]
    # The warm-up is a fifth of the steps, then the rate falls.
    assert len(rates) == 40
    assert rates.argmax() in (7, 8) and rates.max() == pytest.approx(5e-4)
    assert (rates[:7] < rates[1:8]).all() and (rates[8:-1] > rates[9:]).all()
    assert rates[-1] < .01 * rates.max()


@pytest.mark.parametrize('batches', [1, 3])
def test_a_short_training_reaches_its_rate(small_run, batches):
    """Warm-ups of less than two iterations are stretched to two."""
    runner = small_run({
        'epochs': 6 // batches, 'train_cfg.max_epochs': 6 // batches,
        'lr': 5e-4, 'train_dataloader.batch_size': 8,
        'train_dataloader.dataset.dataset.num_images': 8 * batches})
    runner.train()
    rates = runner.message_hub.get_scalar('train/lr').data[0]
    assert len(rates) == 6 and rates.max() > 4e-4


def test_schedules_counted_in_epochs_stay_whole(tmp_path):
    config = tmp_path / 'c.py'
    config.write_text(f'''
_base_ = [{COCO!r}]
param_scheduler = [dict(type='LinearLR', begin=0, end=5),
                   dict(type='CosineAnnealingLR', T_max=5, begin=5, end=10)]
epochs = 3
''')
    first, second = load_config(str(config)).param_scheduler
    assert (first.end, second.begin, second.T_max, second.end) == (2, 2, 2, 3)
    config.write_text(f'''
_base_ = [{COCO!r}]
param_scheduler = [dict(type='MultiStepLR', milestones=[6, 9]),
                   dict(type='StepLR', step_size=3)]
epochs = 20
''')
    steps, step = load_config(str(config)).param_scheduler
    assert steps.milestones == [12, 18] and step.step_size == 6


def test_image_size_reaches_pipelines_model_and_cache(tmp_path, tiny_clip):
    trees.csv(tmp_path)
    weights = str(tmp_path / 'tiny.pth')
    save_random_weights(tiny_clip, weights)
    for size, grid in ((64, (2, 2)), (96, (3, 3))):
        cfg = load_config(str(ROOT / 'configs/trm_ml_csv.py'), {
            'data_root': f'{tmp_path}/', 'arch': tiny_clip,
            'model.backbone.weights': weights, 'image_size': size})
        assert cfg.model.backbone.image_size == size
        for split in ('train', 'val', 'test'):
            inputs = build_dataset(cfg, split)[0]['inputs']
            assert inputs.shape[1:] == (size, size)
        filler = CacheFiller(cfg, 'train', tmp_path / str(size))
        assert filler.meta.grid == grid
    vit = load_config(str(ROOT / 'configs/trm_ml_vit_coco.py'),
                      {'image_size': 224})
    assert vit.model.backbone.img_size == 224
    assert vit.val_dataloader.dataset.pipeline[1].scale == (224, 224)
    scenes = load_config(str(ROOT / 'configs/trm_ml_scenes.py'),
                         {'image_size': 128})
    assert build_dataset(scenes, 'val')[0]['inputs'].shape[1:] == (128, 128)


def test_arch_alone_changes_the_tower(tmp_path):
    """RN50 with random weights: width, classes and normalisation follow."""
    weights = str(tmp_path / 'rn50.pt')
    save_random_weights('RN50', weights)
    cfg = coco(**{'arch': 'RN50', 'model.backbone.weights': weights,
                  'image_size': 64})
    model = MODELS.build(cfg.model).eval()
    assert model.head.dim == 1024 and model.head.num_classes == 80
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx(
        [122.7709383, 116.7460125, 104.09373615])
    with torch.no_grad():
        out = model(torch.zeros(1, 3, 64, 64), mode='predict')
    assert out[0].pred_score.shape == (80, )
    other = load_config(str(ROOT / 'configs/trm_ml_resnet50_coco.py'),
                        {'arch': 'RN50'})
    assert other.model.head.text.arch == 'RN50'


def test_shorthands_work_in_a_config_file_too(tmp_path):
    config = tmp_path / 'c.py'
    config.write_text(f'''
_base_ = [{COCO!r}]
epochs = 5
lr = 2e-3
image_size = 320
arch = 'RN50'
data_root = '/elsewhere/'
''')
    cfg = load_config(str(config))
    assert cfg.train_cfg.max_epochs == 5
    assert cfg.optim_wrapper.optimizer.lr == 2e-3
    assert cfg.model.backbone.image_size == 320
    assert cfg.model.backbone.arch == 'RN50'
    assert cfg.train_dataloader.dataset.dataset.data_root == '/elsewhere/'
    # An option of the command line wins, and an entry named in full.
    cfg = load_config(str(config), {'epochs': 7, 'lr': 1e-4,
                                    'optim_wrapper.optimizer.lr': 3e-4})
    assert cfg.train_cfg.max_epochs == 7
    assert cfg.optim_wrapper.optimizer.lr == 3e-4


ROOT_CONFIG = '''
data_root = 'data/'
a = dict(type='A', data_root='data', ann_file='x')
b = dict(type='B', data_root=data_root + 'voc/')
c = dict(type='C', ann_file='y')
train_dataloader = dict(dataset=dict(type='Concat', datasets=[a, b, c]))
'''


def test_data_root_moves_what_lies_in_it(tmp_path):
    config = tmp_path / 'c.py'
    config.write_text(ROOT_CONFIG)
    cfg = load_config(str(config), {'data_root': '/new/'})
    a, b, c = cfg.train_dataloader.dataset.datasets
    assert (a.data_root, b.data_root) == ('/new/', '/new/voc')
    assert 'data_root' not in c
    child = tmp_path / 'child.py'
    child.write_text(f'_base_ = [{str(config)!r}]\ndata_root = "/child/"')
    a, b, _ = load_config(str(child)).train_dataloader.dataset.datasets
    assert (a.data_root, b.data_root) == ('/child/', '/child/voc')
    # A variable that the config has used changes nothing.
    a, b, _ = load_config(str(config)).train_dataloader.dataset.datasets
    assert (a.data_root, b.data_root) == ('data', 'data/voc/')
    config.write_text('train_dataloader = dict(dataset=dict(type="A"))')
    with pytest.raises(ValueError, match='and there is none'):
        load_config(str(config), {'data_root': '/new/'})


def test_workers_fit_the_machine(monkeypatch):
    small = str(ROOT / 'configs/trm_ml_csv_small.py')
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    for cores, workers in ((1, 1), (2, 1), (6, 3), (64, 4)):
        monkeypatch.setattr('os.sched_getaffinity', lambda pid, n=cores: range(
            n), raising=False)
        cfg = load_config(small)
        assert [cfg[name].num_workers for name in loaders] == [workers] * 3
    assert load_config(small, {'workers': 0}).val_dataloader.num_workers == 0
    assert coco(workers=3).train_dataloader.num_workers == 3
    for wrong in (-1, True, 1.5, 'all'):
        with pytest.raises(ValueError, match="of at least 0, or 'fit'"):
            coco(workers=wrong)


def test_the_small_config_has_small_images_of_a_small_tower():
    small = load_config(str(ROOT / 'configs/trm_ml_csv_small.py'))
    assert small.model.backbone.arch == 'RN50'
    for size, cfg in ((224, small), (448, load_config(
            str(ROOT / 'configs/trm_ml_csv_small.py'), {'image_size': 448}))):
        assert cfg.model.backbone.image_size == size
        assert cfg.train_dataloader.dataset.dataset.pipeline[1].scale == size
        assert cfg.test_dataloader.dataset.pipeline[1].scale == (size, size)
    assert small.train_dataloader.batch_size == 16
    assert small.test_dataloader.batch_size == 32


def test_options_of_csv_files_reach_every_split(tmp_path, monkeypatch):
    csv_config = str(ROOT / 'configs/trm_ml_csv.py')
    monkeypatch.chdir(tmp_path)
    cfg = load_config(csv_config, {
        'image_folder': 'photos', 'image_column': 'file',
        'ignore_columns': 'place'})
    for split in ('train', 'val', 'test'):
        *_, data = wrapped_datasets(cfg, split)
        assert data.data_prefix == str(tmp_path / 'photos')
        assert data.image_column == 'file'
        assert data.ignore_columns == ['place']
    cfg = load_config(csv_config, {'ignore_columns': ['a', 'b']})
    assert cfg.val_dataloader.dataset.ignore_columns == ['a', 'b']
    for name in ('image_folder', 'image_column', 'ignore_columns'):
        with pytest.raises(ValueError, match=f'{name} is an option of CSV'):
            coco(**{name: 'x'})


def test_a_scene_set_brings_its_classes():
    cfg = load_config(str(ROOT / 'configs/trm_ml_scenes.py'),
                      {'scene_set': 2})
    assert cfg.model.backbone.classes == 'scenes:2'
    assert cfg.test_dataloader.dataset.scene_set == 2
    with pytest.raises(ValueError, match='set of the built-in scenes, and'):
        coco(scene_set=1)


# Options that change nothing


@pytest.mark.parametrize('option,nearest', [
    ('trian_dataloader.batch_size', 'train_dataloader.batch_size'),
    ('model.head.distilation', 'model.head.distillation'),
    ('model.head.distillation.loss_wieght', 'distillation.loss_weight'),
    ('model.head.region.mlp_layer', 'model.head.region.mlp_layers'),
    ('train_cfg.max_epoch', 'train_cfg.max_epochs'),
    ('epoch', 'epochs'),
    ('dataset', 'train_dataloader.dataset'),
    ('vis_backends', 'visualizer.vis_backends'),
    ('train_dataloader.dataset.knwon', 'train_dataloader.dataset.known'),
    ('default_hooks.checkpoint.intervall', 'checkpoint.interval'),
    ('default_hooks.chekpoint.interval', 'checkpoint.interval'),
    ('param_scheduler.1.ende', 'param_scheduler.1.end'),
    ('optim_wrapper.optimiser.lr', 'optim_wrapper.optimizer.lr'),
])
def test_slips_are_refused_with_the_nearest_name(option, nearest):
    with pytest.raises(ValueError, match='changes nothing') as error:
        coco(**{option: 1})
    assert f'did you mean {nearest}?' in str(error.value) or (
        str(error.value).endswith(f'{nearest}?'))


@pytest.mark.parametrize('option,message', [
    ('train_pipeline', 'train_pipeline is a variable of the config file, .*'
     'set train_dataloader.dataset.dataset.pipeline'),
    ('custom_hooks.9.zero_shot', 'a list of 9, so 9 must be 0 to 8'),
    ('model.backbone.prompt.per_class', 'prompt has class_specific, context'),
])
def test_other_options_without_effect_say_why(option, message):
    with pytest.raises(ValueError, match=message):
        coco(**{option: 1})


@pytest.mark.parametrize('options', [
    {'model.head.region_loss': None},  # not in the config, but a parameter
    {'model.head.distillation': None},
    {'model.head.region.start': 'random'},
    {'model.backbone.prompt.pair': True},
    {'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult': 3},
    {'optim_wrapper.accumulative_counts': 4},
    {'train_dataloader.drop_last': True},
    {'default_hooks.checkpoint.by_epoch': False},
    {'find_unused_parameters': True},
    {'visualizer.vis_backends': [dict(type='LocalVisBackend')]},
    {'model.train_cfg': None},
    {'val_evaluator.1.topk': 5},
    # Parameters of the new type count, not those of the old one.
    {'optim_wrapper.optimizer.type': 'SGD',
     'optim_wrapper.optimizer.momentum': .9},
])
def test_entries_that_something_uses_are_accepted(options):
    coco(**options)


@pytest.mark.parametrize('options,message', [
    ({'lr': 'fast'}, "lr must be a positive number, got 'fast'"),
    ({'optim_wrapper.optimizer.lr': -1}, 'optimizer.lr must be a positive'),
    ({'train_cfg.max_epochs': 0}, 'max_epochs must be a positive integer'),
    ({'epochs': 2.5}, 'epochs must be a positive integer, got 2.5'),
    ({'image_size': 0}, 'image_size must be a positive integer'),
    ({'train_dataloader.batch_size': 0}, 'batch_size must be a positive'),
    ({'arch': 'RN500'}, 'no architecture .*did you mean RN50'),
    ({'arch': 'mini-wid'}, 'did you mean mini-wide.*mini-wide, mini-vit ship'),
])
def test_values_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        coco(**options)


# The command line


def test_words_keep_their_spaces():
    options = parse_options(['a.b=a photo of a', "c='two words'", 'd=5e-4',
                             'e=[1, 2]', 'f=None', 'g=(x y, z)',
                             'h=/my photos (2)/a', 'i=[(1, 2), [a, b c]]',
                             'j=1,2', 'k=dict(size=2, stride=1)'])
    assert options == {'a.b': 'a photo of a', 'c': 'two words', 'd': 5e-4,
                       'e': [1, 2], 'f': None, 'g': ('x y', 'z'),
                       'h': '/my photos (2)/a', 'i': [(1, 2), ['a', 'b c']],
                       'j': [1, 2], 'k': 'dict(size=2, stride=1)'}


# MMEngine's own Runner


def test_mmengines_own_runner_runs_a_fixed_set(tmp_path, tiny_clip):
    """Without this package's launcher: made tree, random weights."""
    trees.coco(tmp_path)
    weights = str(tmp_path / 'tiny.pth')
    save_random_weights(tiny_clip, weights)
    cfg = Config.fromfile(COCO)
    for loader in (cfg.train_dataloader, cfg.val_dataloader,
                   cfg.test_dataloader):
        data = loader.dataset.get('dataset', loader.dataset)
        data.data_root = str(tmp_path)
        data.pipeline[1].scale = (64, 64) if 'Resize' == data.pipeline[
            1].type else 64
        loader.update(num_workers=0, batch_size=2, pin_memory=False)
    cfg.model.backbone.update(arch=tiny_clip, weights=weights, image_size=64)
    cfg.train_cfg.max_epochs = 1
    cfg.work_dir = str(tmp_path / 'work')
    Runner.from_cfg(cfg).train()
    assert read_record(cfg.work_dir).config == 'trm_ml_coco.py'


def test_open_classes_say_what_to_call():
    cfg = Config.fromfile(ROOT / 'configs/trm_ml_csv.py')
    with pytest.raises(ValueError, match='fill_classes'):
        MODELS.build(dict(cfg.model.backbone, weights=None))


def test_a_csv_config_is_filled_in_wherever_it_is_built(tmp_path):
    """The classes come from the header, also for tests alone."""
    (tmp_path / 'images').mkdir()
    cv2.imwrite(str(tmp_path / 'images/a.jpg'),
                np.zeros((8, 8, 3), np.uint8))
    with open(tmp_path / 'val.csv', 'w', newline='') as file:
        csv.writer(file).writerows([['image', 'dog', 'cat'], ['a.jpg', 1, 0]])
    from trm_ml_mm.engine import fill_classes
    cfg = load_config(str(ROOT / 'configs/trm_ml_csv.py'),
                      {'data_root': f'{tmp_path}/'})
    fill_classes(cfg, 'test')
    assert cfg.model.backbone.classes == ['dog', 'cat']


# Columns of CSV files


@pytest.fixture
def turned(tmp_path):
    """val.csv has the columns of train.csv in another order."""
    trees.csv(tmp_path)
    (tmp_path / 'val.csv').write_text(
        'red car,dog,image,hot dog\n,1,a.jpg,0\n1.0,,b.jpg,\n0,0,c.jpg,0\n')
    return tmp_path


def test_columns_are_matched_by_name(turned, tiny_clip):
    save_random_weights(tiny_clip, str(turned / 'tiny.pth'))
    options = {'data_root': str(turned), 'arch': tiny_clip, 'image_size': 64,
               'model.backbone.weights': str(turned / 'tiny.pth'),
               'epochs': 1, **{f'{split}_dataloader.num_workers': 0
                               for split in ('train', 'val', 'test')}}
    config = str(ROOT / 'configs/trm_ml_csv.py')
    cfg = load_config(config, options)
    train, val = (build_dataset(cfg, split) for split in ('train', 'val'))
    names = ('dog', 'hot dog', 'red car')
    assert val.metainfo['classes'] == train.metainfo['classes'] == names
    assert (label_matrix(val) == label_matrix(train)).all()
    build_runner(config, str(turned / 'work'), options).train()
    # The test alone: no training set, and the checkpoint says the order.
    (turned / 'train.csv').unlink()
    assert build_dataset(cfg, 'test').metainfo['classes'] == (
        'red car', 'dog', 'hot dog')
    runner = build_runner(config, str(turned / 'test'), options, train=False,
                          checkpoint=str(turned / 'work/epoch_1.pth'))
    assert runner.test_dataloader.dataset.metainfo['classes'] == names
    found = runner.test()
    last = read_record(turned / 'work').row('last').metrics
    assert found['multi-label/mAP'] == pytest.approx(last['mAP'])


@pytest.mark.parametrize('header, message', [
    ('image,dog,hot dog', 'val.csv line 1: "red car" is among classes but no '
     'column of the file: add the column'),
    ('image,dog,hot dog,red car,cat', 'val.csv line 1: "cat" is a column of '
     'the file but not among classes, .*ignore_columns'),
    ('image,dog,hot dog,Red Car', r'"Red Car" is .* \(1 more differ\)'),
])
def test_other_columns_are_refused(turned, header, message):
    cells = ',' * header.count(',')
    (turned / 'val.csv').write_text(f'{header}\na.jpg{cells}\n')
    cfg = load_config(str(ROOT / 'configs/trm_ml_csv.py'),
                      {'data_root': str(turned)})
    with pytest.raises(ValueError, match=message):
        build_dataset(cfg, 'val')
