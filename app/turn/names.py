"""Names as engines accept them: at most 64 characters of [A-Za-z0-9_-], the same for the same tool whatever else there
is."""

from __future__ import annotations

import hashlib
import re

MAX_NAME = 64
_FOREIGN = re.compile(r"[^A-Za-z0-9_-]")


def clean(name: str) -> str:
    """The name in the characters engines accept; one that had to be changed or cut carries a digest of the original."""
    plain = _FOREIGN.sub("_", name)
    if plain == name and 0 < len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain[: MAX_NAME - 9]}_{digest}"


def flat(namespace: str | None, name: str) -> str:
    """The one name the model sees for a client's tool. It always carries the namespace, so that a tool which appears
    later changes no other's name."""
    return name if namespace is None else clean(f"{namespace}__{name}")
