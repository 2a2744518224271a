"""Errors without what other libraries put around them."""


def root_cause(error: BaseException) -> BaseException:
    """The error that this one reports.

    MMEngine raises an error of a constructor again, with the name of the
    class in front.
    """
    while True:
        inner = error.__cause__ or error.__context__
        if type(inner) is not type(error) or str(inner) not in str(error):
            return error
        error = inner
