"""Label images: python tools/predict.py photos/ --checkpoint CHECKPOINT"""
from trm_ml_mm.cli.predict import main

if __name__ == '__main__':
    main()
