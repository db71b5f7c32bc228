"""What engines tell of their prefix caches: their messages decoded into one vocabulary, and followed without gaps.

Decoders are pure. `book` turns an engine's block hashes into the router's keys, `follower` keeps the sequence whole,
and `subscriber` is the only part that has sockets.
"""
