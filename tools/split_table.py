"""Split one table of images and labels into training, validation and test:
python tools/split_table.py all.csv --images FOLDER --out data/own"""
from trm_ml_mm.cli.split_table import main

if __name__ == '__main__':
    main()
