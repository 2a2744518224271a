from .dataset import OpenImages

__all__ = ['OpenImages']
