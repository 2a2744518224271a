# Baseline: CLIP without any training, from the best location of the dense map.
# python tools/test.py <this file>, without a checkpoint.
# On another data set: TRM_ML_BASE=trm_ml_coco python tools/test.py <this file>
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(
    backbone=dict(pooled=False),
    head=dict(_delete_=True, type='trm_ml_mm.ZeroShotHead', level='dense'),
)
# Similarities rank images; there is no threshold for F1.
test_evaluator = [dict(type='trm_ml_mm.MultiLabelAP')]
