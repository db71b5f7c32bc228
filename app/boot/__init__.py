"""The composition root: the only place that constructs, and the only one that knows every room."""
