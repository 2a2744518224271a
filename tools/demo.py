"""Open a page in the browser to play with a trained model:
python tools/demo.py work_dirs/trm_ml_scenes/epoch_10.pth
"""
from trm_ml_mm.cli.demo import main

if __name__ == '__main__':
    main()
