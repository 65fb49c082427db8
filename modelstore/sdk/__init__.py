"""ClearML-shaped classes over a registry: the only place with state of the whole process."""
