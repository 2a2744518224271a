"""A module that is used but never learned."""
from torch import nn


class FrozenModule:
    """Holds a module that is used but never learned.

    This class is not an ``nn.Module``. So its owner has no parameter, buffer
    or state-dict entry of the module: nothing reaches the optimiser, DDP, the
    EMA or a checkpoint, ``train()`` cannot wake its BatchNorm, and
    ``init_weights()`` cannot overwrite it. A deep copy, as the EMA makes one,
    shares the module; so does a view of it, or of a part of it, that the owner
    keeps after it. The owner forwards ``_apply``, so that the module moves
    between devices with its owner.
    """

    def __init__(self, module: nn.Module):
        self.module = module.eval().requires_grad_(False)

    def __deepcopy__(self, memo):
        # A view of a part of it, copied with its owner, shows the same part.
        memo.update((id(part), part) for part in self.module.modules())
        return self
