"""Write a file to hand over:
python tools/publish_model.py work_dirs/trm_ml_scenes/epoch_10.pth --out release
"""
from trm_ml_mm.cli.publish_model import main

if __name__ == '__main__':
    main()
