# The base that components are added to: category regions, query level, known
# labels only. The prototypes stay in memory for components to use; on their own
# they change nothing.
_base_ = '../{{$TRM_ML_BASE:trm_ml_scenes}}.py'

model = dict(
    head=dict(
        distillation=None,
        pseudo_weight=0.,
        contrast=None,
        relations=0.,
        scores='query'))
