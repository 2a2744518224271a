"""Fine-tuning to other classes: those of the same name keep what they
learned."""
import pytest
import torch
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from tests_support import ROOT

from trm_ml_mm.engine import load_config
from trm_ml_mm.models.class_entries import ClassChange, carry_classes
from trm_ml_mm.models.text import BakedText

OLD = ['red circle', 'blue star', 'green heart', 'yellow arrow', 'red ring']
NEW = ['yellow arrow', 'orange ring', 'red circle', 'blue heart']
KEPT = {'yellow arrow': (3, 0), 'red circle': (0, 2)}  # name: there, here
SCENES = str(ROOT / 'configs/trm_ml_scenes.py')
# Written out: the axes that count classes.
AXES = {
    'backbone.text.residual': (1, ), 'backbone.text.prompt.context': (1, ),
    'head.bias': (0, ), 'head.relations.weight': (0, 1),
    'head.region.query_offset': (0, ), 'head.label_statistics.negatives': (0, ),
    'head.label_statistics.positives': (0, ), 'head.prototypes.visual': (0, ),
    'head.prototypes.visual_count': (0, ),
}
HEADS = {
    'trm_ml_scenes': {},
    'baselines/query_decoder': {'head.output': (0, )},
    'baselines/query_decoder_text': {'head.output': (0, )},
    'baselines/linear_probe': {'head.output.weight': (0, )},
    'baselines/text_pixel': {}, 'baselines/text_image': {},
}


def build(classes, config=SCENES, **options):
    cfg = load_config(config, {
        'model.backbone.classes': classes,
        'model.backbone.text_residual': .1,
        'model.backbone.prompt.learnable': True,
        'model.backbone.prompt.class_specific': True, **options})
    init_default_scope('mmpretrain')
    return MODELS.build(cfg.model)


def trained(classes, images=40, **options):
    """A model whose state is all different numbers."""
    model = build(classes, **options)
    model.head.prototypes.prepare(images)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith(('identity', 'unit', 'calibrated')):
                continue
            if value.is_floating_point():
                value.normal_(std=.1)
            else:
                value.random_(5, 9)
    model.head.calibrated.fill_(True)
    return model


def test_every_entry_of_a_class_moves_with_it():
    old, new = trained(OLD), build(NEW)
    new.head.prototypes.prepare(40)
    before = {k: v.clone() for k, v in new.state_dict().items()}
    state = old.state_dict()
    copy = {k: v.clone() for k, v in state.items()}
    result = carry_classes(new, state, OLD, NEW)
    assert all(torch.equal(state[k], copy[k]) for k in copy)  # not changed
    new.load_state_dict(result)
    moved = 0
    for key, value in new.state_dict().items():
        if key in AXES:
            moved += 1
            fresh = before[key].clone()
            if AXES[key] == (0, 1):
                for there, here in KEPT.values():
                    for there2, here2 in KEPT.values():
                        fresh[here, here2] = state[key][there, there2]
            else:
                for there, here in KEPT.values():
                    if AXES[key] == (0, ):
                        fresh[here] = state[key][there]
                    else:
                        fresh[:, here] = state[key][:, there]
            assert torch.equal(value, fresh), key
        elif key == 'backbone.text.identity':
            assert torch.equal(value, before[key])
        elif key in ('head.label_statistics.seen', 'head.prototypes.history'):
            assert torch.equal(value.nan_to_num(7), before[key].nan_to_num(7))
        else:
            assert torch.equal(value, state[key]), key
    assert moved == len(AXES)


def test_kept_classes_are_predicted_as_before():
    old, new = trained(OLD).eval(), build(NEW)
    new.load_state_dict(carry_classes(new, old.state_dict(), OLD, NEW),
                        strict=False)
    new.head.prototypes.prepare(40)
    images = torch.randn(4, 3, 96, 96)
    # A relation with a class that is gone is gone too.
    gone = [c for c in range(5) if c not in (0, 3)]
    with torch.no_grad():
        old.head.relations.weight[gone] = 0
        before, after = (m.eval()(images, mode='tensor') for m in (old, new))
    for there, here in KEPT.values():
        assert torch.allclose(before[:, there], after[:, here], atol=1e-5)


def test_another_order_of_the_same_classes_changes_nothing():
    order = [3, 0, 4, 1, 2]
    names = [OLD[c] for c in order]
    old, new = trained(OLD, images=900), build(names)
    new.head.prototypes.prepare(40)  # a smaller training set
    new.load_state_dict(carry_classes(new, old.state_dict(), OLD, names))
    own, other = new.head, old.head
    assert torch.equal(own.prototypes.history,
                       other.prototypes.history[..., order])
    assert torch.equal(own.relations.weight,
                       other.relations.weight[order][:, order])
    assert own.label_statistics.seen == other.label_statistics.seen


@pytest.mark.parametrize('config', HEADS)
def test_every_entry_whose_size_is_a_number_of_classes_is_declared(config):
    """A model of five classes and one of four differ in those entries."""
    path = str(ROOT / f'configs/{config}.py')
    one, other = (build(names, path) for names in (OLD, NEW))
    declared = {
        f'{prefix}.{name}': axes for prefix, module in one.named_modules()
        for name, axes in getattr(module, 'class_axes', {}).items()}
    differ = {
        key: tuple(n for n in range(value.dim())
                   if value.shape[n] != other.state_dict()[key].shape[n])
        for key, value in one.state_dict().items()
        if value.shape != other.state_dict()[key].shape}
    assert differ.keys() >= {'head.bias', *HEADS[config]}
    for key, axes in differ.items():
        assert declared[key] == axes, key
    assert HEADS[config].items() <= declared.items()


def test_new_classes_need_a_text_tower():
    old = trained(OLD)
    model = build(NEW)
    model.backbone.text = BakedText(NEW, embed_dim=8)
    with pytest.raises(ValueError, match='BakedText has no text tower, so it '
                       'cannot read new classes'):
        carry_classes(model, old.state_dict(), OLD, NEW)
    model.backbone.text = BakedText(OLD[::-1], embed_dim=8)
    carry_classes(model, old.state_dict(), OLD, OLD[::-1])


def test_a_change_is_told_by_name():
    assert ClassChange.between(['a', 'b', 'c'], ['c', 'd', 'a']) == (
        ['c', 'a'], ['d'], ['b'])
    assert ClassChange.between(['a'], ['a']) == (['a'], [], [])
