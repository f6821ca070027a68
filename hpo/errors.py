"""The one exception for what the user gave."""


class InputError(ValueError):
    """A study file, option, dataset or storage is at fault; the text is for the user, a line a fault.

    `hpo` prints it without a traceback and exits with 2.
    """
