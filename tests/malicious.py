"""Files that run code where they are loaded without care."""
import torch
from torch import nn


class Evil:
    """Unpickled, it creates a file."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, 'w')


class Writes(nn.Module):
    """Loading it with ``torch.jit.load`` writes a file."""

    def __init__(self, path: str):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.path = path

    @torch.jit.export
    def __getstate__(self):
        return self.weight, self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, str, bool]):
        self.weight, self.path, self.training = state
        torch.save(self.weight, self.path)

    def forward(self, x):
        return x
