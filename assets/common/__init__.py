"""What all stages share: resources, partitions, metadata."""
