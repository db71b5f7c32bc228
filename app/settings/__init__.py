"""Settings: one typed tree, read from defaults, a file, the environment and flags, in rising order."""
