"""Whether a tool may be called: allow, ask, or deny. Pure.

Several have a say, and the strictest wins: the request, the admin's rule for the tool, and the tenant's policy. What a
server says about its own tools (annotations) is a stranger's word: it makes nothing milder unless the admin trusts the
server.
"""

from __future__ import annotations

from app.mcp.rules import STRICTNESS, Decision, ServerRules, TenantPolicy
from app.turn.request import ApprovalRule


def decide(tool: str, rules: ServerRules, policy: TenantPolicy, request: ApprovalRule, *, claims: bool) -> Decision:
    """The decision about calls of `tool`, by its own name. `claims`: the server says that it only reads.

    The request's rule knows the tool by the name that requests see.
    """
    rule = rules.rule(tool)
    reads = only_reads(tool, rules, claims=claims)
    asks = request.asks(rule.alias or tool, read_only=reads)
    return strictest(
        "ask" if asks else "allow",
        rule.decision or rules.default,
        policy.least,
        "allow" if reads else policy.least_for_writes,
    )


def only_reads(tool: str, rules: ServerRules, *, claims: bool) -> bool:
    """Whether it counts as a tool that only reads: by the admin's word, or by a trusted server's."""
    said = rules.rule(tool).read_only
    return said if said is not None else rules.trusted and claims


def strictest(*decisions: Decision) -> Decision:
    """The strictest of them."""
    return max(decisions, key=STRICTNESS.index)
