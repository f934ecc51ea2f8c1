"""The ``adseq`` command, also as ``python -m pipelines``."""

from __future__ import annotations

from pipelines.cli.interruption import ending_at_signals


def main() -> None:
    """Run the command that the arguments name; a signal during the first imports also ends the command in words."""
    with ending_at_signals():
        from pipelines.cli.app import app
    app()


if __name__ == "__main__":
    main()
