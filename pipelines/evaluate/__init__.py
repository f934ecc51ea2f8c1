"""``adseq evaluate`` and ``adseq split``: fixed splits, their answers, their scores."""
