"""Side-by-side measurements against peers and limits: ``python -m benchmarks [name ...]``, one module a question."""
