"""The chat-completions API as a dialect, as engines speak it: we ask in it. Pure translation, no I/O."""
