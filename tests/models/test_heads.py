import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from tests_support import ROOT, small_backbones

from trm_ml_mm.datasets import PartialLabelDataset
from trm_ml_mm.engine import load_config
from trm_ml_mm.models import CategoryRelations
from trm_ml_mm.models.heads import targets_of

CONFIG = load_config(str(ROOT / 'configs/trm_ml_scenes.py'))
CONFIG.model.head.prototypes.warmup_images = 6000
SCENES = CONFIG.model
HEAD = dict(SCENES.head, num_classes=30, dim=128)  # as the classifier fills in


def batch(count, size, classes):
    samples = []
    for _ in range(count):
        score = torch.randint(-1, 2, (classes, )).float()
        samples.append(DataSample().set_gt_score(score))
    return torch.randn(count, 3, size, size), samples


@pytest.mark.parametrize('name', ['resnet50', 'vit'])
def test_other_backbones_train_and_predict_by_config_alone(name):
    """Through mmpretrain's own registry, without custom_imports."""
    cfg = Config.fromfile(ROOT / f'configs/trm_ml_{name}_coco.py')
    assert cfg.get('custom_imports') is None
    cfg.merge_from_dict(small_backbones())
    model = MODELS.build(cfg.model)
    model.init_weights()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    images, samples = batch(2, 64, 3)
    model.train()
    values = []
    for _ in range(6):
        losses = model(images, samples, mode='loss')
        loss, _ = model.parse_losses(losses)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < values[0]
    assert any(p.grad.abs().sum() > 0 for p in model.backbone.parameters())
    model.eval()
    with torch.no_grad():
        result = model(images, samples, mode='predict')
    assert result[0].pred_score.shape == (3, )
    assert torch.allclose(result[0].pred_logit.sigmoid(),
                          result[0].pred_score)


def scene_head(**options):
    model = MODELS.build(SCENES)
    return MODELS.build(dict(HEAD, **options)), model.backbone


def test_output_is_one_typed_structure():
    head, backbone = scene_head()
    output = head.match(backbone(torch.randn(2, 3, 96, 96)))
    assert output.query_logits.shape == output.region_logits.shape == (2, 30)
    assert output.features.saliency.shape == (2, 30, 36)
    assert output.features.query.shape == (2, 30, 128)
    assert torch.equal(head.logits(output, 'query'), output.query_logits)
    mean = (output.query_logits + output.region_logits) / 2
    assert torch.equal(head.logits(output, 'mean'), mean)


def test_relations_equal_a_loop_and_leave_the_probabilities_alone():
    relations = CategoryRelations(3, scale=2.)
    logits = torch.randn(2, 3, requires_grad=True)
    assert torch.equal(relations(logits), logits)  # the start
    torch.nn.init.normal_(relations.weight)
    got = relations(logits)
    for b in range(2):
        for c in range(3):
            moved = sum(
                logits[b, k].sigmoid() * relations.weight[k, c]
                for k in range(3) if k != c)
            assert got[b, c].item() == pytest.approx(
                (logits[b, c] + 2 * moved).item(), abs=1e-5)
    got[:, 0].sum().backward()
    assert torch.equal(logits.grad[:, 0], torch.ones(2))
    assert (logits.grad[:, 1:] == 0).all()
    assert (relations.weight.grad.diag() == 0).all()


def test_first_logits_have_the_asked_mean_and_use_no_label():
    head, backbone = scene_head(initial_logit=-1.5)
    feats = backbone(torch.randn(8, 3, 96, 96))
    head.eval()
    head.calibrate_bias(feats)
    assert head.common_bias == 0  # only training calibrates
    head.train()
    head.match(feats)
    assert head.common_bias == 0  # computing logits does not
    head.calibrate_bias(feats)
    first = head.match(feats).region_logits
    assert first.mean().item() == pytest.approx(-1.5, abs=1e-4)
    bias = head.common_bias.clone()
    other = backbone(torch.randn(8, 3, 96, 96))
    head.loss(other, batch(8, 96, 30)[1])
    assert torch.equal(head.common_bias, bias)  # once
    twin, _ = scene_head(initial_logit=-1.5)
    twin.load_state_dict(head.state_dict())
    twin.train()
    twin.calibrate_bias(other)
    assert torch.equal(twin.common_bias, bias)  # not again after loading


def test_the_loss_begins_with_the_calibration():
    head, backbone = scene_head(initial_logit=-1.5)
    head.train()
    feats = backbone(torch.randn(8, 3, 96, 96))
    head.loss(feats, batch(8, 96, 30)[1])
    assert head.match(feats).region_logits.mean().item() == pytest.approx(
        -1.5, abs=1e-4)


class Tiny:
    """Three-class data whose labels can be flipped where they are hidden."""

    def __init__(self, labels):
        self.metainfo = dict(classes=[f'c{i}' for i in range(labels.shape[1])])
        self.rows = labels

    def __len__(self):
        return len(self.rows)

    def full_init(self):
        pass

    def get_data_info(self, i):
        return dict(img_path=str(i), gt_score=self.rows[i])


TERMS = ['loss_cls', 'loss_region', 'loss_distillation', 'loss_pseudo',
         'loss_contrast', 'loss_assumed']


@pytest.mark.parametrize('term', TERMS)
def test_hidden_labels_never_touch_a_loss(term):
    truth = np.random.randint(0, 2, (32, 30)).astype(np.float32)
    truth[:, :5] = 1  # classes without a known negative
    hidden = PartialLabelDataset(Tiny(truth), known=.3).labels == -1
    flipped = np.where(hidden, 1 - truth, truth)
    gradients = []
    for labels in (truth, flipped):
        torch.manual_seed(0)
        head, backbone = scene_head(
            region_loss=dict(type='trm_ml_mm.PartialAsymmetricLoss'),
            contrast=dict(type='trm_ml_mm.MultimodalContrastiveLoss'),
            assume_negative=.1,
            prototypes=dict(type='trm_ml_mm.MultimodalPrototypes',
                            warmup_images=0,
                            positive_ratio=.2))
        torch.nn.init.normal_(head.region.mlp[-1].weight, std=.1)
        data = PartialLabelDataset(Tiny(labels), known=.3)
        targets = torch.tensor(
            np.stack([data.get_data_info(i)['gt_score'] for i in range(32)]))
        feats = backbone(torch.randn(32, 3, 96, 96))
        head.train()
        for _ in range(2):  # the memory has something at the second step
            losses = head.losses(head.match(feats), targets)
        learned = [p for p in [*head.parameters(), *backbone.parameters()]]
        grads = torch.autograd.grad(losses[term], learned, allow_unused=True)
        gradients.append([g for g in grads if g is not None])
    assert (truth != flipped).sum() > 500
    assert any(g.abs().sum() > 0 for g in gradients[0])
    for a, b in zip(*gradients):
        assert torch.equal(a, b)


def test_absence_is_assumed_where_negatives_are_not_labelled():
    head, backbone = scene_head(assume_negative=1., prototypes=None,
                                contrast=None, pseudo_weight=0)
    output = head.match(backbone(torch.randn(4, 3, 96, 96)))
    targets = torch.full((4, 30), -1.)
    targets[0] = 1
    for labelled in (set(), {3}, {3}):
        if labelled and not head.label_statistics.counts.negatives[3]:
            targets[1, 3] = 0  # seen once
        total = 0
        for i in range(4):
            for c in range(30):
                if targets[i, c] == -1 and c not in labelled:
                    absent = torch.full((4, 30), -1.)
                    absent[i, c] = 0
                    total += head.loss_module(output.query_logits, absent)
        got = head.losses(output, targets)['loss_assumed']
        # Each alone is a mean over one label; here one of 120.
        assert got.item() == pytest.approx(total.item() / 120, rel=1e-5)
        targets[1, 3] = -1


def test_an_assumed_label_weighs_as_much_as_a_known_one():
    """However few are assumed: one class of 30 without negatives."""
    head, backbone = scene_head(assume_negative=1., prototypes=None,
                                contrast=None, pseudo_weight=0)
    targets = torch.zeros(4, 30)
    targets[:, 7] = -1
    logits = torch.zeros(4, 30, requires_grad=True)
    head.label_statistics.update(targets)
    losses = head.supervision(logits, targets, head.label_statistics.counts)
    known, = torch.autograd.grad(losses['loss_cls'], logits)
    assumed, = torch.autograd.grad(losses['loss_assumed'], logits)
    assert assumed[0, 7].item() == pytest.approx(known[0, 6].item(), rel=.05)
    assert (assumed[:, :7] == 0).all()


def test_a_pseudo_label_weighs_at_most_its_weight_in_known_ones():
    """However few there are: one unknown label of 120."""
    head, backbone = scene_head(assume_negative=0., contrast=None,
                                distillation=None, pseudo_weight=2.)
    targets = torch.zeros(4, 30)
    targets[2, 7] = -1
    pseudo = torch.full((4, 30), -1.)
    pseudo[2, 7] = 0
    head.prototypes.forward = lambda *_: pseudo
    output = head.match(backbone(torch.randn(4, 3, 96, 96)))
    losses = head.losses(output, targets)
    known, made = (torch.autograd.grad(losses[name], output.query_logits,
                                       retain_graph=True)[0]
                   for name in ('loss_cls', 'loss_pseudo'))
    with torch.no_grad():  # the label's own gradient, were it a known one
        targets[2, 7] = 0
    whole, = torch.autograd.grad(
        head.losses(output, targets)['loss_cls'], output.query_logits)
    assert (known[2, 7], whole[2, 7] != 0) == (0, True)
    assert made[2, 7].item() == pytest.approx(2 * whole[2, 7].item(),
                                              rel=.02)


def test_distillation_counts_pseudo_labels_as_known():
    head, backbone = scene_head(
        prototypes=dict(type='trm_ml_mm.MultimodalPrototypes',
                        warmup_images=0))
    torch.nn.init.normal_(head.region.mlp[-1].weight, std=.1)
    output = head.match(backbone(torch.randn(32, 3, 96, 96)))
    targets = torch.randint(-1, 2, (32, 30)).float()
    made = []
    head.prototypes.register_forward_hook(lambda *call: made.append(call[-1]))
    got = head.losses(output, targets)['loss_distillation']
    with_pseudo = torch.where(targets == -1, made[0], targets)
    assert (with_pseudo != targets).any()
    levels = output.query_logits, output.region_logits
    assert torch.equal(got, head.distillation(*levels, with_pseudo))
    assert got < head.distillation(*levels, targets)


@pytest.mark.parametrize('options,message', [
    (dict(prototypes=None), 'give prototypes'),
    (dict(scores='both'), 'scores must be'),
    (dict(train_level='both'), 'train_level must be'),
    (dict(pseudo_weight=-2), 'pseudo_weight must be a number of at least 0'),
    (dict(relations=-1.), 'relations must be a number of at least 0'),
    (dict(assume_negative='much'), 'assume_negative must be a number'),
    (dict(dim=None), 'needs dim'),
    (dict(text=dict(classes='scenes')), 'needs arch'),
    (dict(text=dict(classes='scenes', arch='mini'), num_classes=7),
     'num_classes=7'),
])
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(HEAD, **options))


def test_features_without_text_are_refused():
    head, _ = scene_head()
    with pytest.raises(ValueError, match='without text'):
        head((torch.randn(2, 128, 6, 6), ))


def test_classes_of_head_and_backbone_must_agree():
    head, backbone = scene_head(num_classes=29)
    with pytest.raises(ValueError, match='num_classes=29'):
        head(backbone(torch.randn(2, 3, 96, 96)))


def test_a_list_of_labels_counts_each_once():
    targets = targets_of([DataSample().set_gt_label([3, 3, 5])], 6)
    assert targets.sum() == 2 and targets[0, 3] == targets[0, 5] == 1


def test_mixed_precision_leaves_head_and_losses_alone():
    head, backbone = scene_head()
    samples = batch(4, 96, 30)[1]
    images = torch.randn(4, 3, 96, 96)
    with torch.no_grad():
        feats = backbone(images)
    head.train()
    plain = head.loss(feats, samples)
    twin, _ = scene_head()
    twin.train()
    with torch.autocast('cpu', torch.bfloat16):
        mixed = twin.loss(feats, samples)
    for name, value in plain.items():
        assert mixed[name].dtype == torch.float32
        assert torch.equal(mixed[name], value), name


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_features_of_a_half_precision_tower_are_read_in_full(dtype):
    head, backbone = scene_head()
    with torch.no_grad():
        feats = backbone(torch.randn(4, 3, 96, 96))
        half = feats.replace(dense=feats.dense.to(dtype))
        rounded = feats.replace(dense=half.dense.float())
        output, expected = head.match(half), head.match(rounded)
    assert output.query_logits.dtype == torch.float32
    assert torch.equal(output.query_logits, expected.query_logits)
    assert torch.equal(output.features.saliency, expected.features.saliency)


def test_unknown_package_parts_are_found_without_imports():
    """MMPretrain's registry finds the scope on its own; without any mmcv the
    package says so in one sentence."""
    import subprocess
    import sys
    code = ("from mmpretrain.registry import MODELS; print(MODELS.build(dict("
            "type='trm_ml_mm.PartialAsymmetricLoss')).clip)")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True,
                          text=True)
    assert done.stdout.strip().endswith('0.05'), done.stderr[-2000:]
    code = "import sys; sys.modules['mmcv'] = None; import trm_ml_mm"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True,
                          text=True)
    assert 'neither mmcv nor mmcv-lite is installed' in done.stderr


def test_width_of_head_and_backbone_must_agree():
    head, backbone = scene_head(dim=64)
    with pytest.raises(ValueError, match='dim=64'):
        head(backbone(torch.randn(2, 3, 96, 96)))


def test_the_classifier_fills_in_what_each_kind_of_head_takes():
    """Heads of this package, of a user in MMPretrain's registry, of
    MMPretrain; by name and by class."""
    from trm_ml_mm.models import TextPixelHead

    @MODELS.register_module(force=True)
    class UsersHead(TextPixelHead):
        pass

    loss = dict(type='trm_ml_mm.PartialAsymmetricLoss')
    for kind in ('trm_ml_mm.TextPixelHead', 'UsersHead', UsersHead):
        model = MODELS.build(dict(
            type='trm_ml_mm.CLIPClassifier', backbone=SCENES.backbone,
            head=dict(type=kind, loss=loss)))
        assert (model.head.num_classes, model.head.dim) == (30, 128)
    model = MODELS.build(dict(
        type='trm_ml_mm.CLIPClassifier', backbone=SCENES.backbone,
        head=dict(type='MultiLabelLinearClsHead', in_channels=128)))
    assert model.head.num_classes == 30
    with pytest.raises(KeyError, match='NoHead'):
        MODELS.build(dict(type='trm_ml_mm.CLIPClassifier',
                          backbone=SCENES.backbone, head=dict(type='NoHead')))
