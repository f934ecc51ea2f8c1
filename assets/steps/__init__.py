"""The work of stages and commands. A module here defines no asset."""
