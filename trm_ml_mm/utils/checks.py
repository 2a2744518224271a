"""Checks of options that many components share."""
from numbers import Real


def check_not_negative(**options) -> None:
    """Refuse weights and scales that make no sense.

    Raises:
        ValueError: Naming the first option that is not a number of at least 0.
    """
    for name, value in options.items():
        if not isinstance(value, Real) or isinstance(value, bool) or (
                not 0 <= value < float('inf')):
            raise ValueError(f'{name} must be a number of at least 0, got '
                             f'{value!r}.')


def check_positive(**options) -> None:
    """Refuse sizes and temperatures of 0 or less.

    Raises:
        ValueError: Names the first option that is not a positive number.
    """
    for name, value in options.items():
        if not isinstance(value, Real) or isinstance(value, bool) or (
                not 0 < value < float('inf')):
            raise ValueError(f'{name} must be a positive number, got '
                             f'{value!r}.')


def check_ratio(**options) -> None:
    """Refuse ratios outside [0, 1].

    Raises:
        ValueError: Naming the first of them.
    """
    for name, value in options.items():
        if not isinstance(value, Real) or not 0 <= value <= 1:
            raise ValueError(f'{name} must lie in [0, 1], got {value!r}.')


def check_choice(choices, **options) -> None:
    """Refuse words that are not among the choices.

    Raises:
        ValueError: Naming the first of them, and the choices.
    """
    for name, value in options.items():
        if value not in choices:
            words = ' or '.join(map(repr, choices))
            raise ValueError(f'{name} must be {words}, got {value!r}.')
