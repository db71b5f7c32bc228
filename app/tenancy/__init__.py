"""Whose request it is: tenants, their keys, and the log of what was done in their name."""
