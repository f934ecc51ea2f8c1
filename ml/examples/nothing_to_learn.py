"""The outcome of a log that a model has nothing to learn from; imports nothing, so that it costs nothing."""


class NothingToLearn(ValueError):
    """A log names no conversion that a model could predict; the message says what is missing."""
