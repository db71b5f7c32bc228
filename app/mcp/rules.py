"""What an admin decides about servers, their tools and a tenant's requests: plain values, checked when they are read.

Nothing here is secret; credentials live in the vault.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

Decision: TypeAlias = Literal["allow", "ask", "deny"]
STRICTNESS: tuple[Decision, ...] = ("allow", "ask", "deny")

ToolName = Annotated[str, Meta(min_length=1, max_length=256)]
Alias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Label = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}\Z")]


class ToolRule(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What an admin says about one tool. Sizes are in bytes, durations in seconds.

    `alias` is the name requests and models know it by. `defaults` are arguments it is given when the model leaves them
    out. `read_only` and `idempotent` are the admin's word, which counts where the server's own does not. A tool that
    is `private` returns what others should not see, one that is `open_world` could tell them: where one run may use
    both, calls of the latter need approval.
    """

    decision: Decision | None = None
    alias: Alias | None = None
    defaults: dict[str, msgspec.Raw] = {}
    read_only: bool | None = None
    idempotent: bool = False
    private: bool = False
    open_world: bool = False
    timeout_secs: Annotated[float, Meta(gt=0, le=3600)] | None = None
    max_result_bytes: Annotated[int, Meta(gt=0, le=67_108_864)] | None = None


class ServerRules(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What an admin says about a server's tools: `tools` by the server's own names, `default` about all others.

    `allowed_tools` are all that may be listed and called, where set. Of a `trusted` server it is believed which of its
    tools only read. The definitions of a `pinned` server's tools may not change without an admin's word. With
    `elicitation` its tools may ask the user something in the middle of a call.
    """

    default: Decision = "allow"
    tools: dict[ToolName, ToolRule] = {}
    allowed_tools: tuple[ToolName, ...] | None = None
    trusted: bool = False
    pinned: bool = True
    elicitation: bool = False

    def __post_init__(self) -> None:
        names = [rule.alias for rule in self.tools.values() if rule.alias is not None]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two tools are called {name!r}")
            if name in self.tools and self.tools[name].alias is None:
                raise ValueError(f"{name!r} is both a tool and the alias of another")

    def rule(self, tool: str) -> ToolRule:
        """The rule of a tool, by its own name."""
        return self.tools.get(tool, _NO_RULE)


_NO_RULE = ToolRule()


class ServerConfig(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A tenant's server. Requests name it by its label, or by `connector_id` where it has one.

    `auth` says how it is authenticated to: with what is kept in the vault for the whole tenant (`shared`), or with
    what each principal has put there (`per_user`). A `stateless` server remembers nothing of a session, so that all
    responses of a principal may use one.
    """

    url: Annotated[str, Meta(min_length=1, max_length=2048)]
    description: Annotated[str, Meta(max_length=2000)] = ""
    connector_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")] | None = None
    rules: ServerRules = msgspec.field(default_factory=ServerRules)
    auth: Literal["none", "shared", "per_user"] = "none"
    stateless: bool = False


class TenantPolicy(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What holds for all of a tenant's requests. It only ever makes things stricter. Durations are in seconds.

    `server_urls`: whether requests may bring servers of their own. `least` is the mildest decision about any tool,
    `least_for_writes` about one that is not known only to read. `second_person`: an approval takes somebody else than
    the one who asked. `new_tools`: what happens to a tool of a pinned server that was not there at first.
    `keep_arguments` writes the arguments of calls into the audit log.
    """

    server_urls: Decision = "allow"
    least: Decision = "allow"
    least_for_writes: Decision = "allow"
    second_person: bool = False
    new_tools: Literal["accept", "quarantine"] = "accept"
    approval_secs: Annotated[float, Meta(gt=0, le=2_592_000)] = 3600.0
    keep_arguments: bool = False


class Policy(Struct, frozen=True):
    """A tenant's policy and its version, which counts up from 1; 0 is a tenant that decided nothing."""

    version: int = 0
    body: TenantPolicy = TenantPolicy()
