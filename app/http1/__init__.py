"""HTTP/1.1 as a client speaks it: connections, the pool of idle ones, and how an exchange breaks. Plumbing."""
