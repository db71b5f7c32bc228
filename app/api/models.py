"""`/v1/models`: what can be asked for now."""

from __future__ import annotations

from typing import Literal

from litestar import Request, Router, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Struct

from app.api.principal import tenant_of
from app.api.services import Services
from app.responses.ports import ModelInfo
from app.turn.errors import NotFound


class Model(Struct, frozen=True):
    """A model some worker serves. `created` is in seconds since the epoch."""

    id: str
    created: int
    owned_by: str
    object: Literal["model"] = "model"


class ModelList(Struct, frozen=True):
    """All models."""

    data: list[Model]
    object: Literal["list"] = "list"


def _view(info: ModelInfo) -> Model:
    return Model(info.id, info.created, info.owned_by)


@get("/", operation_id="listModels", summary="List the models that can be asked for now", sync_to_thread=False)
def list_models(request: Request[None, None, State], services: NamedDependency[Services]) -> ModelList:
    """The models of all healthy workers."""
    return ModelList([_view(info) for info in services.models(tenant_of(request.scope))])


# Model names contain slashes, hence a path.
@get("/{model:path}", operation_id="getModel", summary="Read one model", sync_to_thread=False)
def get_model(request: Request[None, None, State], services: NamedDependency[Services], model: FromPath[str]) -> Model:
    """One model by its name."""
    name = str(model).removeprefix("/")
    for info in services.models(tenant_of(request.scope)):
        if info.id == name:
            return _view(info)
    raise NotFound(f"The model '{name}' does not exist.", code="model_not_found", param="model")


def router() -> Router:
    """The handlers of models."""
    return Router("/v1/models", route_handlers=[list_models, get_model], tags=["Models"])
