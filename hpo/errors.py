"""The one exception for what the user gave."""


class InputError(ValueError):
    """A study file, option, dataset or storage is at fault; its text is for the user, a line each.

    `hpo` prints it without a traceback and exits with 2.
    """
