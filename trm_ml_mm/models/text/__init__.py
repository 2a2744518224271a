from .baked import BakedText
from .encoder import PromptedTextEncoder, encode_prompts
from .prompt_learner import PromptLearner, kept_positions

__all__ = [
    'BakedText', 'PromptLearner', 'PromptedTextEncoder', 'encode_prompts',
    'kept_positions'
]
