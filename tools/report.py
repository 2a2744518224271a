"""Write a training as one HTML page:
python tools/report.py work_dirs/trm_ml_scenes
"""
from trm_ml_mm.cli.report import main

if __name__ == '__main__':
    main()
