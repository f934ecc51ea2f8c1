"""The error for a log that a model cannot learn from; the module imports nothing, so its import costs nothing."""


class NothingToLearn(ValueError):
    """A log names no conversion that a model could predict; the message names the missing part."""
