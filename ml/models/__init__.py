"""The networks, their artefacts on disk, and how they encode users and items."""
