"""Built-in scenes as files: python tools/make_scenes.py --out scenes"""
from trm_ml_mm.cli.make_scenes import main

if __name__ == '__main__':
    main()
