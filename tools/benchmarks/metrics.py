"""Compare average precision with MMPretrain's, in one run:
python tools/benchmarks/metrics.py"""
import argparse
import time

import torch
from mmpretrain.evaluation import AveragePrecision

from trm_ml_mm.evaluation import average_precision, precision_recall, predict


def clock(function, repeats):
    """Best time of a few runs, in seconds, and the result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return min(times), result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--images', type=int, default=40504)
    parser.add_argument('--classes', type=int, default=80)
    parser.add_argument('--repeats', type=int, default=5)
    args = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    shape = (args.images, args.classes)
    noise = torch.randn(shape, generator=generator)
    targets = (torch.rand(shape, generator=generator) < .04).long()
    print(f'{args.images} x {args.classes}, best of {args.repeats}, '
          f'{torch.get_num_threads()} threads')
    for name, scores in (('as of a trained model', noise + 3.3 * targets),
                         ('random', noise)):
        theirs, expected = clock(
            lambda s=scores: AveragePrecision.calculate(s, targets.clone()),
            args.repeats)
        ours, found = clock(lambda s=scores: average_precision(s, targets),
                            args.repeats)
        gap = abs(100 * found.mean().item() - float(expected))
        print(f'scores {name}: mAP {100 * found.mean().item():.1f}, '
              f'differs by {gap:.1e}')
        print(f'  AP, MMPretrain   {theirs:8.3f} s')
        print(f'  AP, ours         {ours:8.3f} s   ratio {ours / theirs:.3f}')
    f1, _ = clock(
        lambda: precision_recall(predict(noise, 0.), targets), args.repeats)
    print(f'CP .. OF1, ours    {f1:8.3f} s')


if __name__ == '__main__':
    main()
