"""What a model learns from: examples of a training period, and their context."""
