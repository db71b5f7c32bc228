"""How a worker is chosen: one pure function per policy, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from app.routing.policies.cache_aware import cache_aware
from app.routing.policies.consistent_hashing import consistent_hashing
from app.routing.policies.least_load import least_load
from app.routing.policies.manual import manual
from app.routing.policies.passthrough import passthrough
from app.routing.policies.power_of_two import power_of_two
from app.routing.policies.prefix_hash import prefix_hash
from app.routing.policies.random_worker import random_worker
from app.routing.policies.round_robin import round_robin
from app.routing.policies.values import Ask, Field, Policy

__all__ = ["POLICIES", "READS_PROMPTS", "Ask", "Field", "Policy"]

POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        "random": random_worker,
        "round_robin": round_robin,
        "power_of_two": power_of_two,
        "least_load": least_load,
        "cache_aware": cache_aware,
        "consistent_hashing": consistent_hashing,
        "prefix_hash": prefix_hash,
        "manual": manual,
        "passthrough": passthrough,
    }
)

# Policies that look at the prompt; for the others nobody reads it.
READS_PROMPTS = frozenset(("cache_aware", "prefix_hash"))
