# Visual Genome, 200 categories. Their names were never published: write them
# into category_names.txt, one a line.
_base_ = 'clip448.py'

_root = 'data/vg/'

train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            type='trm_ml_mm.VG200',
            data_root=_root,
            classes='category_names.txt',
            ann_file='train_list_500.txt',
        )))
val_dataloader = dict(
    dataset=dict(
        type='trm_ml_mm.VG200',
        data_root=_root,
        classes='category_names.txt',
        ann_file='test_list_500.txt',
    ))
test_dataloader = val_dataloader
