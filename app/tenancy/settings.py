"""What an operator may decide about tenants and their keys."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from app.telemetry.secret import Secret

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}\Z")]


class ConfiguredKey(Struct, frozen=True, kw_only=True):
    """A key that is not in the database. Raises `ValueError` for one that could be guessed."""

    tenant: Annotated[Name, Meta(description="Whom it speaks for.")]
    name: Annotated[Name, Meta(description="What it is called in logs and lists.")]
    key: Annotated[Secret, Meta(description="The key: env:NAME, file:PATH or itself, at least 16 characters.")]
    scopes: Annotated[
        tuple[Literal["data", "admin"], ...],
        Meta(description="data: use models and tools; admin: manage MCP servers, policies and approvals."),
    ] = ("data",)

    def __post_init__(self) -> None:
        if len(self.key.reveal()) < 16:
            raise ValueError(f"the key {self.name!r} of tenant {self.tenant!r} is shorter than 16 characters")


class TenancySettings(Struct, frozen=True, kw_only=True):
    """Who may use the server. Without any key, here or in the database, everyone is the tenant `default`."""

    keys: Annotated[
        tuple[ConfiguredKey, ...], Meta(description="Keys of tenants (tables: tenant, name, key, scopes).")
    ] = ()
    allow_open: Annotated[
        bool,
        Meta(
            description="Serve without any key on an address that other machines reach.",
            extra={"flag": "--allow-open"},
        ),
    ] = False
    key_cache_secs: Annotated[
        float, Meta(ge=0, description="How long a key is taken as valid without looking again: a revoked one lives on.")
    ] = 5.0

    def __post_init__(self) -> None:
        names = [(key.tenant, key.name) for key in self.keys]
        for tenant, name in names:
            if names.count((tenant, name)) > 1:
                raise ValueError(f"two keys of tenant {tenant!r} are called {name!r}")
