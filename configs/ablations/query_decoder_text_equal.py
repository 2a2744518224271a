# The strongest baseline with every part of TRM-ML that fits it: category
# relations, pseudo-labels from its logit, and distillation.
_base_ = 'query_decoder_text_relations.py'

model = dict(
    head=dict(
        prototypes=dict(type='trm_ml_mm.MultimodalPrototypes', scale=0.),
        pseudo_weight=4.,
        distillation=dict(
            type='trm_ml_mm.RegionDistillationLoss', loss_weight=2.)))
