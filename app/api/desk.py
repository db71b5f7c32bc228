"""What the endpoints beside responses need from the rooms below, and what they have in common."""

from __future__ import annotations

from collections.abc import Sequence
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
    QueryParameter(
        name="include[]",
        description="What to include. What a response did not include when it was made is not kept; all else is shown.",
    ),
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


def included(request: Asking, given: Sequence[str] | None) -> None:
    """Raise `InvalidRequest` for something that cannot be included. Both spellings of the parameter are read."""
    check_include([*(given or ()), *(str(each) for each in request.query_params.getall("include", []))])


def listing(data: Sequence[msgspec.Raw], ids: Sequence[str], *, has_more: bool) -> bytes:
    """A page as JSON."""
    return msgspec.json.encode(ListOf(data, ids[0] if ids else None, ids[-1] if ids else None, has_more))


def of_items(page: ItemPage) -> bytes:
    """A page of items as JSON."""
    return listing([item.raw for item in page.items], [item.id for item in page.items], has_more=page.has_more)


def json_of(value: Any, status: int = 200) -> Response[bytes]:
    """An answer."""
    body = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return Response(body, status_code=status, media_type="application/json")
