"""History: what was said, kept as a tree of items that branches share."""
