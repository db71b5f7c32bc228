"""The web application: the handlers, their errors and their services, behind the edge."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from itertools import count
from secrets import token_hex

from litestar import Litestar
from litestar.di import Provide
from litestar.types import ASGIApp

from app.api import conversations, counting, creating, health, mcp, models, openapi, prompts, responses, workers
from app.api.admin.routers import routers
from app.api.edge import Edge
from app.api.errors import HANDLERS  # pyright: ignore[reportUnknownVariableType]
from app.api.legible import Legible
from app.api.principal import Door
from app.api.services import Services


def create_app(services: Services) -> ASGIApp:
    """The ASGI application over `services`."""

    def provide() -> Services:
        return services

    app = Litestar(
        route_handlers=[
            creating.create_handler(services),
            responses.router(),
            *([conversations.router(), prompts.router(), counting.router()] if services.desk else []),
            models.router(),
            health.router(),
            *routers(services.admin),
            *mcp.handlers(services),
            *workers.routers(services.fleet),
            openapi.openapi_json,
            openapi.assets(),
        ],
        dependencies={"services": Provide(provide, sync_to_thread=False)},
        exception_handlers=HANDLERS,
        openapi_config=openapi.config(version("shepherd")),
        logging_config=None,
        debug=False,
    )
    return Edge(Legible(Door(app, services.gate)), services.metrics, _request_ids(), access_log=services.access_log)


def _request_ids() -> Callable[[], str]:
    """Ids unique among all processes: a random half for the process and a counted one."""
    process, numbers = token_hex(8), count(1)
    return lambda: f"req_{process}{next(numbers):016x}"
