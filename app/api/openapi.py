"""The API's own description, and the page that shows it. Everything the page needs is served from here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, Router, get
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.static_files import create_static_files_router  # pyright: ignore[reportUnknownVariableType]

from app.api.bodies import BODIES
from app.api.desk import ListOf
from app.api.errors import ErrorBody
from app.api.listing import ListResponses
from app.dialects.openai_responses.wire import CreateResponse

UI = Path(__file__).parent / "ui"
_REFERENCE = "#/components/schemas/{name}"


class Page(OpenAPIRenderPlugin):
    """The page at `/docs`."""

    def __init__(self) -> None:
        super().__init__(path="/")
        self._page = (UI / "index.html").read_bytes()

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        """The page; it fetches the description itself."""
        return self._page


class Document(JsonRenderPlugin):
    """The description itself, at `/docs/openapi.json`."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        """The whole document."""
        return msgspec.json.encode(document(openapi_schema))


def config(version: str) -> OpenAPIConfig:
    """How the framework describes the handlers it knows."""
    return OpenAPIConfig(
        title="Shepherd",
        version=version,
        description="A Responses API server between agents and models.",
        path="/docs",
        render_plugins=[Page(), Document()],
        use_handler_docstrings=True,
    )


def document(described: dict[str, Any]) -> dict[str, Any]:
    """The description of the framework's handlers, completed by the one handler it does not see, and by our errors."""
    wanted = [CreateResponse, ErrorBody, ListOf, *BODIES.values()]
    (create, error, page, *bodies), schemas = msgspec.json.schema_components(wanted, ref_template=_REFERENCE)
    components = described.get("components", {})
    failure = {"description": "The request is wrong; `param` says where", **_json(error)}
    said = dict(zip(BODIES, bodies, strict=True))
    paths = {
        path: {
            method: _with_error(_with_body(each, said.get((method, path))), failure)
            for method, each in operations.items()
        }
        for path, operations in described["paths"].items()
    }
    # The list comes with the other endpoints beside responses.
    listed = {"get": _list_operation(page, failure)} if "/v1/conversations" in paths else {}
    whole = {"post": _create_operation(create, error), **listed}
    return {
        **described,
        "paths": {"/v1/responses": whole, **paths},
        "components": {**components, "schemas": {**schemas, **components.get("schemas", {})}},
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _with_error(operation: dict[str, Any], failure: dict[str, Any]) -> dict[str, Any]:
    answers = operation["responses"]
    return {**operation, "responses": {**answers, "400": failure} if "400" in answers else answers}


def _with_body(operation: dict[str, Any], body: dict[str, Any] | None) -> dict[str, Any]:
    if body is None:
        return operation
    failure = {"400": {"description": "The request is wrong; `param` says where"}}
    return {
        **operation,
        "requestBody": {"required": True, **_json(body)},
        "responses": {**operation["responses"], **failure},
    }


def _list_operation(page: dict[str, Any], failure: dict[str, Any]) -> dict[str, Any]:
    properties = msgspec.json.schema(ListResponses)["$defs"]["ListResponses"]["properties"]
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": schema, "description": schema.get("description", "")}
        for name, schema in properties.items()
    ]
    return {
        "tags": ["Responses"],
        "operationId": "listResponses",
        "summary": "List stored responses (not in OpenAI's API)",
        "description": "The newest first. Responses in the making are not among them.",
        "parameters": parameters,
        "responses": {"200": {"description": "A page of responses", **_json(page)}, "400": failure},
    }


def _create_operation(create: dict[str, Any], error: dict[str, Any]) -> dict[str, Any]:
    failure = _json(error)
    return {
        "tags": ["Responses"],
        "operationId": "createResponse",
        "summary": "Make a response",
        "description": "Runs the model, and the MCP tools it asks for, until the answer is complete. With `stream` the "
        "answer is a stream of server-sent events that ends with `[DONE]`.",
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "maxLength": 255},
                "description": "A request that is sent again with its key is answered with the response there is.",
            }
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": create}}},
        "responses": {
            "200": {
                "description": "The response, or the events it is made of",
                "content": {
                    "application/json": {"schema": {"type": "object", "title": "Response"}},
                    "text/event-stream": {"schema": {"type": "string"}},
                },
            },
            "400": {"description": "The request is wrong; `param` says where", **failure},
            "404": {"description": "No worker serves the model", **failure},
            "409": {"description": "The idempotency key belongs to another request", **failure},
            "413": {"description": "The body is larger than the server accepts", **failure},
            "415": {"description": "The content type is not JSON", **failure},
            "503": {"description": "Nobody can serve this now; see `retry-after`", **failure},
        },
    }


@get("/openapi.json", include_in_schema=False, sync_to_thread=False)
def openapi_json(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The OpenAPI document."""
    described = document(request.app.openapi_schema.to_schema())
    return Response(msgspec.json.encode(described), media_type=MediaType.JSON)


def assets() -> Router:
    """The files the page is made of."""
    return create_static_files_router("/docs/assets", [UI], include_in_schema=False, name="docs-assets")
