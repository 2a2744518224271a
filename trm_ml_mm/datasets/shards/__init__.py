"""Image files in large tar files, found by an index."""
from .backend import ShardBackend
from .folder import ShardFolder
from .writing import ImageList, undecodable, write_shards

__all__ = ['ImageList', 'ShardBackend', 'ShardFolder', 'undecodable',
           'write_shards']
