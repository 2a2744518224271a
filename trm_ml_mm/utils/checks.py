"""Checks of options that many components share."""
from numbers import Real
from typing import Callable


def check_not_negative(**options) -> None:
    """Refuse weights and scales that make no sense.

    Raises:
        ValueError: Naming the first option that is not a number of at least 0.
    """
    _check_numbers(options, lambda v: 0 <= v < float('inf'),
                   'be a number of at least 0')


def check_positive(**options) -> None:
    """Refuse sizes and temperatures of 0 or less.

    Raises:
        ValueError: Naming the first option that is not a positive number.
    """
    _check_numbers(options, lambda v: 0 < v < float('inf'),
                   'be a positive number')


def check_ratio(**options) -> None:
    """Refuse ratios outside [0, 1].

    Raises:
        ValueError: Naming the first of them.
    """
    _check_numbers(options, lambda v: 0 <= v <= 1, 'lie in [0, 1]')


def check_inside(**options) -> None:
    """Refuse ratios outside (0, 1).

    Raises:
        ValueError: Naming the first of them.
    """
    _check_numbers(options, lambda v: 0 < v < 1, 'lie between 0 and 1')


def _check_numbers(options: dict, is_right: Callable, rule: str) -> None:
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, Real) or (
                not is_right(value)):
            raise ValueError(f'{name} must {rule}, got {value!r}.')


def check_choice(choices, **options) -> None:
    """Refuse words that are not among the choices.

    Raises:
        ValueError: Naming the first of them, and the choices.
    """
    for name, value in options.items():
        if value not in choices:
            words = ' or '.join(map(repr, choices))
            raise ValueError(f'{name} must be {words}, got {value!r}.')
