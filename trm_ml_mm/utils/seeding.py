"""Seed every random generator that training uses."""
import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def mix_seed(*parts: int) -> int:
    """One 32-bit seed from several numbers, such as (seed, epoch, rank)."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
