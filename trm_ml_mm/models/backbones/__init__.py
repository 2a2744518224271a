from .clip_prompt import CLIPFeatures, CLIPPromptBackbone

__all__ = ['CLIPFeatures', 'CLIPPromptBackbone']
