"""Helpers that know nothing of images, labels or models."""
from importlib import import_module


def register_all_modules(init_default_scope: bool = True) -> None:
    """Register every component of this package, and of MMPretrain.

    Configs need no call of it: ``type='trm_ml_mm.X'`` imports what it names.
    ``mmengine.hub.get_model`` calls it, and looks for it here; nothing else in
    this folder knows the folders above it.

    Args:
        init_default_scope: Make ``mmpretrain`` the default scope.
    """
    for name in ('datasets', 'engine', 'evaluation', 'features', 'models'):
        import_module(f'trm_ml_mm.{name}')
    import_module('mmpretrain.utils').register_all_modules(init_default_scope)
