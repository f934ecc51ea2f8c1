"""RecTools and implicit on the fixed splits that adseq is measured on: ``python -m benchmarks.peers SPLIT``.

Two environments meet here. ``__main__``, ``table`` and ``scoring`` run in adseq's; ``train`` and what it imports run in
the peers' own, which lacks adseq's dependencies. ``results`` is what they hand over.
"""
