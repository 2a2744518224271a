"""Weights files: read without running code from them, and checked.

Read are OpenAI's TorchScript archives, plain state dicts, open_clip's training
checkpoints and safetensors.
"""
from pathlib import Path
from typing import Dict

import open_clip
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from torch import Tensor, nn

from .torchscript import is_torchscript, read_torchscript

# Keys of OpenAI's own files that are facts and not weights.
_OPENAI_FACTS = ('input_resolution', 'context_length', 'vocab_size')
# The causal mask of OpenAI's text towers: a constant, not a weight.
_CONSTANT = 'attn_mask'
# Of Hugging Face's text towers before transformers 4.31: a constant too.
_OLD_CONSTANT = 'text.transformer.embeddings.position_ids'


def read_state_dict(path: str, arch: str):
    """A CLIP state dict from a file, and whether the file is OpenAI's.

    Reads OpenAI's TorchScript archives, plain state dicts, open_clip's
    training checkpoints and safetensors. No program of an archive runs, and no
    code of a pickle.
    """
    if not Path(path).is_file():
        tags = ', '.join(
            open_clip.list_pretrained_tags_by_model(arch)) or 'it has none'
        raise FileNotFoundError(
            f'CLIP weights {path!r} are neither a file nor one of the tags of '
            f'{arch}: {tags}.')
    if is_torchscript(path):
        state = {key: value for key, value in read_torchscript(path).items()
                 if key.split('.')[-1] != _CONSTANT}
    else:
        try:
            state = dict(open_clip.factory.load_state_dict(path))
            if not all(isinstance(v, Tensor) for v in state.values()):
                raise ValueError('it holds more than tensors')
        except Exception as error:
            raise ValueError(
                f'{path} is not a weights file that PyTorch can read safely '
                f'({type(error).__name__}); give a state dict or OpenAI\'s '
                'own file.') from error
    from_openai = all(key in state for key in _OPENAI_FACTS)
    for key in _OPENAI_FACTS:
        state.pop(key, None)
    return state, from_openai


def load_checked(model: nn.Module, state: Dict[str, Tensor], path: str,
                 arch: str) -> None:
    """Load a state dict, if it is one of this architecture to the last entry.

    Raises:
        ValueError: Names the first entry that is not.
    """
    expected = model.state_dict()
    for key in sorted(set(expected) | set(state)):
        have = tuple(getattr(state[key], 'shape', ('no', 'tensor'))
                     ) if key in state else 'missing'
        want = tuple(expected[key].shape) if key in expected else 'unexpected'
        if have != want:
            raise ValueError(
                f'{path} is not a {arch}: "{key}" is {have} in the file and '
                f'{want} in the architecture; set arch to what the file '
                'holds.')
    model.load_state_dict(state)


def fit(state: Dict[str, Tensor], model: nn.Module) -> Dict[str, Tensor]:
    """A state dict as open_clip's own loading would bring it into the form of
    a model: keys of other programs and of former versions, and the size of
    the position embedding of a ViT."""
    state = convert_state_dict(model, dict(state))
    if 'positional_embedding' in state and (
            not hasattr(model, 'positional_embedding')):
        state = convert_to_custom_text_state_dict(state)
    for key in ('logit_scale', 'logit_bias'):
        own = getattr(model, key, None)
        if own is not None and key in state:
            state[key] = state[key].reshape(own.shape)
    if not hasattr(model, _OLD_CONSTANT):
        state.pop(_OLD_CONSTANT, None)
    open_clip.factory.resize_pos_embed(state, model)
    return state
