"""Choose thresholds: python tools/calibrate.py CHECKPOINT CONFIG_OR_TABLE"""
from trm_ml_mm.cli.calibrate import main

if __name__ == '__main__':
    main()
