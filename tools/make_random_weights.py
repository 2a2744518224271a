"""Make a CLIP weights file with random values, for smoke runs without a
download: python tools/make_random_weights.py RN101 rn101_random.pt"""
import argparse

from trm_ml_mm.cli.arguments import command, parse


@command
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('arch', help="open_clip's name, such as RN101")
    parser.add_argument('out', help='file to write')
    parser.add_argument('--seed', type=int, default=0)
    args = parse(parser)
    from trm_ml_mm.models.towers import save_random_weights
    save_random_weights(args.arch, args.out, args.seed)
    print(f'{args.out}: a {args.arch} with random values. It is for smoke '
          'runs; no figure from it means anything.')


if __name__ == '__main__':
    main()
