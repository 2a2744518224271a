"""Look at what a config trains on: python tools/inspect_data.py CONFIG"""
from trm_ml_mm.cli.inspect_data import main

if __name__ == '__main__':
    main()
