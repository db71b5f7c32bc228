"""What the endpoints beside responses need from the rooms below, and what they have in common."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response
from litestar.datastructures import State
from litestar.params import QueryParameter
from msgspec import Struct

from app.api.body import whole
from app.api.services import Services
from app.dialects.openai_responses.desk import check_include
from app.responses.stores import ItemPage

Asking = Request[None, None, State]

# The greatest number a database keeps.
MOST = 2**63 - 1

Limit = Annotated[int, QueryParameter(ge=1, le=100, description="Most things to return.")]
Order = Annotated[Literal["asc", "desc"], QueryParameter(description="Oldest or newest first.")]
After = Annotated[str | None, QueryParameter(description="Id of the last thing of the page before.")]
Included = Annotated[
    list[str] | None,
    QueryParameter(name="include[]", description="What to show with items that is not shown by itself."),
]


class ListOf(Struct, frozen=True):
    """A page, in the order asked for."""

    data: Sequence[msgspec.Raw]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


async def body_of(request: Asking, services: Services, *, optional: bool = False) -> bytes:
    """The body of a request. One that is `optional` may be missing altogether: then it is an empty object."""
    if optional and int(request.headers.get("content-length", "1")) == 0:
        return b"{}"
    return await whole(request, services.max_body)


def included(request: Asking, given: Sequence[str] | None) -> frozenset[str]:
    """What is to be included; both spellings of the parameter are read. Raises `InvalidRequest` for what cannot be."""
    found = [*(given or ()), *(str(each) for each in request.query_params.getall("include", []))]
    check_include(found)
    return frozenset(found)


def listing(data: Sequence[msgspec.Raw], ids: Sequence[str], *, has_more: bool) -> bytes:
    """A page as JSON."""
    return msgspec.json.encode(ListOf(data, ids[0] if ids else None, ids[-1] if ids else None, has_more))


async def of_items(services: Services, tenant: str, page: ItemPage, include: Collection[str]) -> bytes:
    """A page of items as JSON, each with what is to be included."""
    items = page.items if services.desk is None else await services.desk.including.items(tenant, page.items, include)
    return listing([item.raw for item in items], [item.id for item in items], has_more=page.has_more)


def json_of(value: Any, status: int = 200) -> Response[bytes]:
    """An answer."""
    body = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return Response(body, status_code=status, media_type="application/json")
