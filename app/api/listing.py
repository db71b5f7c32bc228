"""`GET /v1/responses`: stored responses as a list. Not in OpenAI's API.

It shares its path with the bare handler that makes responses, so it is one, too, and reads its own parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal
from urllib.parse import parse_qsl

import msgspec
from litestar.types import Scope
from msgspec import Meta, Struct, structs

from app.api.caller import tenant_of
from app.api.desk import listing
from app.dialects.openai_responses.encode import body_from
from app.dialects.openai_responses.faults import invalid
from app.responses.stores import Filter, ResponseIndex
from app.turn.errors import InvalidRequest


class ListResponses(Struct, frozen=True, kw_only=True):
    """The parameters. Responses in the making are not in the list."""

    limit: Annotated[int, Meta(ge=1, le=100, description="Most responses to return.")] = 20
    order: Annotated[Literal["asc", "desc"], Meta(description="Oldest or newest first.")] = "desc"
    after: Annotated[str | None, Meta(description="Id of the last response of the page before.")] = None
    model: Annotated[str | None, Meta(description="Only responses of this model.")] = None
    status: Annotated[
        Literal["completed", "incomplete", "failed", "cancelled"] | None, Meta(description="Only with this status.")
    ] = None
    conversation: Annotated[str | None, Meta(description="Only responses made in this conversation.")] = None


async def list_responses(index: ResponseIndex, scope: Scope) -> bytes:
    """A page of responses as JSON. Raises `InvalidRequest`, `Unavailable`."""
    asked = _parameters(scope["query_string"])
    only = Filter(model=asked.model, status=asked.status, conversation=asked.conversation)
    tenant = tenant_of(scope)
    page = await index.listed(tenant, only, limit=asked.limit, order=asked.order, after=asked.after)
    data = [msgspec.Raw(body_from(each.snapshot, each.output)) for each in page.data]
    return listing(data, [each.id for each in page.data], has_more=page.has_more)


def parameters() -> Sequence[structs.FieldInfo]:
    """What can be asked."""
    return structs.fields(ListResponses)


def _parameters(query: bytes) -> ListResponses:
    given = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    for name in given:
        if all(name != each.name for each in parameters()):
            raise InvalidRequest(f"Unknown parameter: '{name[:80]}'.", param=name[:80], code="unknown_parameter")
    try:
        return msgspec.convert(given, ListResponses, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(str(error)) from None
