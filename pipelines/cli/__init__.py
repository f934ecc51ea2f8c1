"""The ``adseq`` command, a module a subcommand."""
