"""One fit: loss, sampling of batches, checkpoints."""
