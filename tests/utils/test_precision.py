"""Which precision is used where."""
from types import SimpleNamespace

import torch

from trm_ml_mm.utils.precision import as_double, full_precision


def test_apple_gpus_are_not_asked_for_fp64():
    """There is none here: a stand-in that, like theirs, has no double()."""
    single = torch.ones(2)
    apple = SimpleNamespace(device=torch.device('mps'), float=lambda: single)
    assert as_double(apple) is single
    assert as_double(single).dtype == torch.float64


def test_full_precision_is_fp32_unless_it_is_more():
    for dtype, expected in ((torch.float16, torch.float32),
                            (torch.bfloat16, torch.float32),
                            (torch.float32, torch.float32),
                            (torch.float64, torch.float64)):
        assert full_precision(torch.ones(1, dtype=dtype)).dtype == expected
