from .dataset import RenderScene, Scenes

__all__ = ['RenderScene', 'Scenes']
