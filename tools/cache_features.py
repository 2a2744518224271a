"""Run the frozen tower once, store its features, train from them:
python tools/cache_features.py CONFIG
python tools/train.py CONFIG --cfg-options feature_cache=work_dirs/NAME/features
"""
from trm_ml_mm.cli.cache_features import main

if __name__ == '__main__':
    main()
