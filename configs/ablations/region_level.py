# The region level alone, in training and prediction.
_base_ = 'base.py'

model = dict(head=dict(train_level='region', scores='region'))
find_unused_parameters = True  # of the query level, under several ranks
