"""Images in large tar files, for a training on a network disk:
python tools/make_shards.py CONFIG --out shards
python tools/train.py CONFIG --cfg-options shards=shards
"""
from trm_ml_mm.cli.make_shards import main

if __name__ == '__main__':
    main()
