"""`/v1/prompts`: instructions and input with variables, kept in versions. Not in OpenAI's API, whose prompts are made
elsewhere; requests name them there and here alike."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from litestar import Response, Router, delete, get, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter
from msgspec import Raw, Struct

from app.api.caller import tenant_of
from app.api.desk import After, Asking, Limit, ListOf, Order, body_of, json_of, listing
from app.api.services import Services
from app.responses.prompts import Prompt, Prompts

Version = Annotated[str | None, QueryParameter(description="A version; the newest when it is left out.")]


class PromptView(Struct, frozen=True, kw_only=True):
    """A version of a prompt. Times are in seconds since the epoch.

    `variables` has every variable of the prompt, with the value for requests that give none, or null: then they must.
    """

    id: str
    version: str
    latest_version: str
    created_at: int
    version_created_at: int
    name: str | None
    instructions: str | None
    input: str | list[Raw] | None
    variables: dict[str, str | None]
    object: Literal["prompt"] = "prompt"


class PromptDeleted(Struct, frozen=True):
    """The answer to a deletion."""

    id: str
    object: Literal["prompt.deleted"] = "prompt.deleted"
    deleted: bool = True


_PROMPT = {200: ResponseSpec(PromptView, generate_examples=False, description="The prompt")}


def _view(found: Prompt) -> PromptView:
    given = found.body.variables or {}
    return PromptView(
        id=found.id,
        version=str(found.version),
        latest_version=str(found.latest),
        created_at=found.created_at,
        version_created_at=found.version_created_at,
        name=found.body.name,
        instructions=found.body.instructions,
        input=found.body.input,
        variables={name: given.get(name) for name in found.holes},
    )


def _prompts(services: Services) -> Prompts:
    assert services.desk is not None
    return services.desk.prompts


@get(
    "/",
    operation_id="listPrompts",
    summary="List prompts",
    responses={200: ResponseSpec(ListOf, generate_examples=False, description="A page of prompts")},
)
async def list_prompts(
    request: Asking, services: NamedDependency[Services], limit: Limit = 20, order: Order = "desc", after: After = None
) -> Response[bytes]:
    """The newest versions of all prompts, the newest prompt first."""
    page = await _prompts(services).listed(tenant_of(request.scope), limit=limit, order=order, after=after)
    data = [Raw(msgspec.json.encode(_view(each))) for each in page.data]
    return json_of(listing(data, [each.id for each in page.data], has_more=page.has_more))


@post("/", status_code=200, operation_id="createPrompt", summary="Store a prompt", responses=_PROMPT)
async def create_prompt(request: Asking, services: NamedDependency[Services]) -> Response[bytes]:
    """Version 1 of a new prompt."""
    body = await body_of(request, services)
    return json_of(_view(await _prompts(services).create(tenant_of(request.scope), body)))


@get("/{prompt_id:str}", operation_id="getPrompt", summary="Read a prompt", responses=_PROMPT)
async def get_prompt(
    request: Asking, services: NamedDependency[Services], prompt_id: FromPath[str], version: Version = None
) -> Response[bytes]:
    """A version of the prompt."""
    return json_of(_view(await _prompts(services).get(tenant_of(request.scope), prompt_id, version)))


@post(
    "/{prompt_id:str}/versions",
    status_code=200,
    operation_id="createPromptVersion",
    summary="Store a new version of a prompt",
    responses=_PROMPT,
)
async def create_version(
    request: Asking, services: NamedDependency[Services], prompt_id: FromPath[str]
) -> Response[bytes]:
    """The next version. Requests that name no version get it from now on."""
    body = await body_of(request, services)
    return json_of(_view(await _prompts(services).add_version(tenant_of(request.scope), prompt_id, body)))


@delete("/{prompt_id:str}", status_code=200, operation_id="deletePrompt", summary="Forget a prompt")
async def delete_prompt(
    request: Asking, services: NamedDependency[Services], prompt_id: FromPath[str]
) -> PromptDeleted:
    """Forget the prompt with all its versions."""
    await _prompts(services).delete(tenant_of(request.scope), prompt_id)
    return PromptDeleted(prompt_id)


def router() -> Router:
    """The handlers of prompts."""
    handlers = [list_prompts, create_prompt, get_prompt, create_version, delete_prompt]
    return Router("/v1/prompts", route_handlers=handlers, tags=["Prompts"])
