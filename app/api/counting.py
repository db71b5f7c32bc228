"""`/v1/responses/input_tokens` and `/v1/responses/compact`: what a request would cost, and a shorter one that says the
same."""

from __future__ import annotations

from typing import Any, Literal

from litestar import Response, Router, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from msgspec import Struct

from app.api.caller import caller_of
from app.api.desk import Asking, body_of, json_of
from app.api.services import Services
from app.dialects.openai_responses.desk import decode_compact, decode_count
from app.responses.compacting import compact


class InputTokens(Struct, frozen=True):
    """How long a request's input is. `estimated`, which OpenAI's API does not have: no engine was there to count."""

    input_tokens: int
    estimated: bool
    object: Literal["response.input_tokens"] = "response.input_tokens"


@post(
    "/input_tokens",
    status_code=200,
    operation_id="countInputTokens",
    summary="Count the tokens of a request's input",
)
async def count_input_tokens(request: Asking, services: NamedDependency[Services]) -> InputTokens:
    """The whole prompt of the first model turn, as the engine counts it: context, instructions, and all tools."""
    assert services.desk is not None
    asked = decode_count(await body_of(request, services))
    caller = caller_of(request.scope)
    found = await services.desk.counting.count(caller.tenant, caller.principal, asked, caller.hints)
    return InputTokens(found.tokens, found.estimated)


@post(
    "/compact",
    status_code=200,
    operation_id="compactResponse",
    summary="Make a shorter context that stands for a conversation",
    responses={200: ResponseSpec(dict[str, Any], generate_examples=False, description="The window to go on from")},
)
async def compact_context(request: Asking, services: NamedDependency[Services]) -> Response[bytes]:
    """What people said, and one item with the model's summary, sealed. Nothing is stored."""
    asked = decode_compact(await body_of(request, services))
    caller = caller_of(request.scope)
    made = await compact(services.responses, caller.tenant, caller.principal, asked, caller.usual)
    return json_of(made)


def router() -> Router:
    """The handlers."""
    return Router("/v1/responses", route_handlers=[count_input_tokens, compact_context], tags=["Responses"])
