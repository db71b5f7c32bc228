"""How a host is written where a port may follow it (RFC 3986, section 3.2.2)."""

from __future__ import annotations


def bracketed(host: str) -> str:
    """A name or an IPv4 address as it is, an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host
