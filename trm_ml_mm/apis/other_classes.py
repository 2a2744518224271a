"""A trained model on other classes, which it knows by their words: the open
vocabulary of a head that matches text."""
from typing import Sequence

from mmengine.config import Config

from trm_ml_mm.engine import complete, load_learned
from trm_ml_mm.engine.calibration import KEY
from trm_ml_mm.models.class_entries import carry_classes
from trm_ml_mm.utils.configs import nested_dicts, plain_types

from .model import LoadedModel, build_model


def with_classes(loaded: LoadedModel, names: Sequence[str]) -> LoadedModel:
    """The same model for other classes, without a training.

    A class of the trained model keeps what it learned. Any other one is
    recognised by its words alone, with what all classes share: as a
    fine-tuning would start. It is not calibrated. Ours.

    Args:
        loaded: The trained model; not changed.
        names: Of the classes.

    Raises:
        ValueError: If the head does not match text, there is no text tower, a
            name is empty or stands there twice, or the tower cannot read it.
    """
    names = [' '.join(name.split()) for name in names]
    if not names or not all(names):
        raise ValueError('Give the words of at least one class; none may be '
                         'empty.')
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f'The class "{twice}" is given twice.')
    head = loaded.model.head
    if not getattr(head, 'is_open_vocabulary', False):
        raise ValueError(
            f'{type(head).__name__} learned something of its own for each '
            'class, so it cannot recognise others by their words: use a '
            'text-region, text-pixel or text-image head.')
    if any(getattr(module, 'needs_all_classes', False)
           for module in loaded.model.modules()):
        raise ValueError('The checkpoint was published without its text '
                         'tower, so it cannot read new words: use that of '
                         'the training itself.')
    old = loaded.description.classes
    model = plain_types(loaded.cfg.model)
    for options in nested_dicts(model):
        if options.get('num_classes') is not None:
            options['num_classes'] = len(names)
        if options.get('classes') is not None:
            options['classes'] = names
            words = dict(zip(old, loaded.description.words))
            options['prompt_names'] = {
                name: words[name] for name in names if name in words}
    cfg = Config(dict(model=model, default_scope='mmpretrain'))
    built = build_model(cfg)
    load_learned(built, carry_classes(
        built, loaded.model.state_dict(), old, names), 'The trained model')
    description = complete(loaded.description._replace(model=model), built,
                           names)
    meta = {key: value for key, value in loaded.meta.items() if key != KEY}
    device = next(loaded.model.parameters()).device
    return LoadedModel(built.to(device).eval(), cfg, description, meta)
