"""The error of labels that no relevance model can be learnt from. Dagster loads this module: it imports nothing."""


class NothingToTell(ValueError):
    """The labels do not tell pairs apart; the message says why."""
