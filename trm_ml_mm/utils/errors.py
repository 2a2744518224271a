"""Errors without what other libraries put around them."""


def root_cause(error: BaseException) -> BaseException:
    """The error that this one reports.

    MMEngine raises an error of a constructor again, with the name of the
    class in front.
    """
    while str(error).startswith('class `') and (
            type(error.__context__) is type(error)):
        error = error.__context__
    return error
