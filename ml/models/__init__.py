"""The networks, their artefacts on disk, and the encoding of users and items."""
