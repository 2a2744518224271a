"""Export a model: python tools/export.py CHECKPOINT --out model.onnx"""
from trm_ml_mm.cli.export import main

if __name__ == '__main__':
    main()
