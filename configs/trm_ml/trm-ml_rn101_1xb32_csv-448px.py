_base_ = '../trm_ml_csv.py'
