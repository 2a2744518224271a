# The head on MMPretrain's ResNet-50: the feature map is projected into the
# joint space, and the head brings the prompted text tower.
_base_ = ['trm_ml_coco.py']

data_preprocessor = dict(  # of the ResNet's own pretraining, not CLIP's
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True)
model = dict(
    type='ImageClassifier',
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=50,
        num_stages=4,
        out_indices=(3, ),
        style='pytorch',
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/'
            'resnet/resnet50_8xb32_in1k_20210831-ea4938fc.pth',
            prefix='backbone')),
    head=dict(
        num_classes=80,
        in_channels=2048,
        text=dict(
            classes='coco',
            arch='RN101',
            weights='default',
            align=True,  # texts of a real CLIP share a narrow cone
            prompt=dict(context='a photo of a', learnable=False))),
)
# A pretrained backbone is tuned with a smaller rate than a new head.
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.05))))
