"""Which worker serves a turn: the workers that are known, how they fare, and how one is chosen."""
