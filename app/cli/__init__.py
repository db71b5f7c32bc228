"""The command line. It parses, prints and returns an exit code; what is done is done elsewhere."""

from app.cli.main import main

__all__ = ["main"]
