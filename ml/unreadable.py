"""The error of a file that was written whole and can no longer be read; imports nothing, so that it costs nothing."""


class Unreadable(RuntimeError):
    """A file of a model, an index or a catalogue is missing or damaged; the message names the file and what to do."""


def first_line(error: Exception) -> str:
    """Return the first line of what an error says; the kind of the error where it says nothing."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
