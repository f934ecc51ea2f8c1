"""Examples of a training period, and their context: the data that a model learns from."""
