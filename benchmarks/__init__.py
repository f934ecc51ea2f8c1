"""Side-by-side measurements against peers and limits: ``python -m benchmarks [name ...]``, one module a question.

``python -m benchmarks.peers`` (``make peers``) is apart: it compares recall on fixed splits, not speed.
"""
