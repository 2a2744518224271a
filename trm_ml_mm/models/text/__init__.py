from .encoder import PromptedTextEncoder, encode_prompts
from .prompt_learner import PromptLearner

__all__ = ['PromptLearner', 'PromptedTextEncoder', 'encode_prompts']
