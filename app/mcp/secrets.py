"""What can be kept for a server, and the tokens that come of it. Values only; `vault.py` and `tokens.py` do the rest.

None of it is ever shown again: the API tells that there is something, of which kind, and since when.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a kind

Text = Annotated[str, Meta(min_length=1, max_length=16_384)]
Url = Annotated[str, Meta(min_length=1, max_length=2048)]


class Headers(Struct, frozen=True, kw_only=True, tag_field="kind", tag="headers", forbid_unknown_fields=True):
    """Fixed headers."""

    headers: Annotated[dict[Text, Text], Meta(min_length=1, max_length=16)]


class Token(Struct, frozen=True, kw_only=True, tag_field="kind", tag="bearer", forbid_unknown_fields=True):
    """A bearer token that does not change."""

    token: Text


class ClientCredentials(
    Struct, frozen=True, kw_only=True, tag_field="kind", tag="client_credentials", forbid_unknown_fields=True
):
    """An OAuth client of the tenant's own (RFC 6749, section 4.4); `resource` as in RFC 8707. With `post`, the secret
    goes in the form. Without `token_url` all that is not given is found when the credential is put here."""

    token_url: Url | None = None
    client_id: Text
    client_secret: Text
    scope: str | None = None
    resource: str | None = None
    post: bool = False


class TokenExchange(
    Struct, frozen=True, kw_only=True, tag_field="kind", tag="token_exchange", forbid_unknown_fields=True
):
    """A token of the user's, exchanged for one that only this server takes (RFC 8693)."""

    token_url: Url
    client_id: Text
    client_secret: Text
    subject_token: Text
    subject_token_type: Text = _ACCESS_TOKEN
    audience: str | None = None
    resource: str | None = None
    scope: str | None = None


class OAuthClient(Struct, frozen=True, kw_only=True, tag_field="kind", tag="oauth_client", forbid_unknown_fields=True):
    """Who the tenant is to the server's authorization server; its users sign in by it. Sent to nobody else."""

    client_id: Text
    client_secret: Text | None = None


class Lease(Struct, frozen=True):
    """Somebody is renewing a grant, until (seconds since the epoch) at most. `holder` is a word of theirs."""

    holder: str
    until: float


class Grant(Struct, frozen=True, kw_only=True, tag_field="kind", tag="oauth", forbid_unknown_fields=True):
    """What a user granted by signing in (OAuth 2.1). Nobody can put one here but the enrolment itself.

    `issuer` is whom the client and the tokens belong to; with `post`, it wants the client's secret in the form.
    `expires_at` is in seconds since the epoch. `asked` are the scopes that were asked for, `scope` those that were
    granted, and `wanted` those that the server has since said it needs.
    """

    issuer: str
    token_url: Url
    client_id: Text
    client_secret: str | None
    resource: str
    access_token: Text
    refresh_token: str | None
    expires_at: float | None
    scope: str | None = None
    asked: str | None = None
    wanted: str | None = None
    lease: Lease | None = None
    post: bool = False


def joined(*scopes: str | None) -> str | None:
    """All of the scopes, each once, in the order of their appearance; None for none."""
    return " ".join(dict.fromkeys(word for each in scopes if each for word in each.split())) or None


Given: TypeAlias = Headers | Token | ClientCredentials | TokenExchange | OAuthClient
Secret: TypeAlias = Given | Grant
Kind: TypeAlias = Literal["headers", "bearer", "client_credentials", "token_exchange", "oauth_client", "oauth"]


def kind(secret: Secret) -> str:
    """Which kind it is."""
    return str(secret.__struct_config__.tag)


class Issued(Struct, frozen=True):
    """An access token. `lasts` is how long, in seconds, where that was told."""

    access_token: str
    lasts: float | None = None
    refresh_token: str | None = None
    scope: str | None = None


class Answer(Struct, frozen=True):
    """What a token endpoint answers (RFC 6749, section 5.1)."""

    access_token: Annotated[str, Meta(min_length=1, max_length=65_536)]
    token_type: str = "Bearer"  # noqa: S105 - the name of a kind
    expires_in: float | None = None
    refresh_token: str | None = None
    scope: str | None = None


SECRET = msgspec.json.Decoder(Secret)
GIVEN = msgspec.json.Decoder(Given)
