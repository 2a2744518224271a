from .baked import BakedText
from .encoder import PromptedTextEncoder
from .prompt_learner import PromptLearner

__all__ = ['BakedText', 'PromptLearner', 'PromptedTextEncoder']
