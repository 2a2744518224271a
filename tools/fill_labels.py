"""Fill in the blanks of a table: python tools/fill_labels.py TABLE.csv
--checkpoint CHECKPOINT --images FOLDER --out filled.csv"""
from trm_ml_mm.cli.fill_labels import main

if __name__ == '__main__':
    main()
