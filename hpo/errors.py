"""The one exception for what the user gave."""


class InputError(ValueError):
    """A study file, an option, a dataset or a storage is wrong. The text has one line per fault.

    `hpo` prints the text without a traceback and exits with 2.
    """
