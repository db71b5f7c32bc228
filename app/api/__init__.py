"""The HTTP edge: requests in, answers and event streams out. Litestar lives here and in `boot` only."""
