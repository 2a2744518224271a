"""Score a test set whose scores do not fit in memory, and print time and peak
memory: python tools/benchmarks/streaming_metrics.py

125,000 x 9,605 drawn scores come batch by batch, as a test gives them. Once as
in Open Images, where 1.8 million labels are known, and once with all of them
known. Each case has a process of its own."""
import argparse
import multiprocessing
import resource
import time

import torch
from mmengine.logging import MMLogger

from trm_ml_mm.evaluation import MultiLabelAP, MultiLabelF1


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--images', type=int, default=125_000)
    parser.add_argument('--classes', type=int, default=9_605)
    parser.add_argument('--known', type=float, nargs='+',
                        default=[1_800_000 / 125_000 / 9_605, 1.],
                        help='ratios of known labels')
    parser.add_argument('--batch-size', type=int, default=64)
    return parser.parse_args()


def score(known, args):
    """One case."""
    MMLogger.get_instance('quiet', log_level='ERROR')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    generator = torch.Generator().manual_seed(0)
    metrics = MultiLabelAP(scored='both'), MultiLabelF1()
    made, labels = 0., 0
    start = time.perf_counter()
    for first in range(0, args.images, args.batch_size):
        began = time.perf_counter()
        shape = min(args.batch_size, args.images - first), args.classes
        logits = torch.randn(shape, generator=generator)
        drawn = torch.rand(shape, generator=generator)
        targets = (drawn < .05 * known).float()
        targets[drawn >= known] = -1
        labels += int((targets >= 0).sum())
        scores = logits.sigmoid()
        samples = [dict(pred_score=s, pred_logit=z, gt_score=t)
                   for s, z, t in zip(scores, logits, targets)]
        made += time.perf_counter() - began
        for metric in metrics:
            metric.process(None, samples)
    taken = time.perf_counter() - start - made
    start = time.perf_counter()
    for metric in metrics:
        metric.evaluate(args.images)
    measured = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f'{args.images:,} x {args.classes:,} scores, {labels:,} labels '
          f'known: taken in {taken:.0f} s, measured in {measured:.0f} s, peak '
          f'memory {peak:.2f} GB ({before:.2f} GB before)')


def main():
    args = parse_args()
    for known in args.known:
        process = multiprocessing.get_context('spawn').Process(
            target=score, args=(known, args))
        process.start()
        process.join()


if __name__ == '__main__':
    main()
