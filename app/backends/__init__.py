"""Turns run at model servers: HTTP clients fit for the hot path, and the engines' dialect on top of them."""
