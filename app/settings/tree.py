"""The one typed tree: each room's own leaf Struct under the room's name, and a flat view of its leaves.

Flags, variable names, `config explain` and the documentation are all made from this view; nothing is written twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from app.backends.settings import BackendSettings
from app.db.settings import DatabaseSettings
from app.history.settings import HistorySettings
from app.mcp.settings import McpSettings
from app.responses.settings import ResponsesSettings
from app.routing.settings import RoutingSettings
from app.settings.server import ServerSettings
from app.simulator.settings import SimulatorSettings
from app.telemetry.secret import Secret
from app.tenancy.settings import TenancySettings

ENV_PREFIX = "SHEPHERD__"


class Settings(Struct, frozen=True, kw_only=True):
    """Everything an operator may decide."""

    server: ServerSettings = ServerSettings()
    responses: ResponsesSettings = ResponsesSettings()
    routing: RoutingSettings = RoutingSettings()
    tenancy: TenancySettings = TenancySettings()
    backends: BackendSettings = BackendSettings()
    mcp: McpSettings = McpSettings()
    db: DatabaseSettings = DatabaseSettings()
    history: HistorySettings = HistorySettings()
    simulator: SimulatorSettings = SimulatorSettings()


class Leaf(Struct, frozen=True, kw_only=True):
    """One setting. `flag` is its command-line flag, where it has one."""

    section: str
    name: str
    type: Any
    default: Any
    description: str
    flag: str | None = None
    secret: bool = False

    @property
    def path(self) -> str:
        """`section.name`: how a settings file and error messages call it."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"{ENV_PREFIX}{self.section.upper()}__{self.name.upper()}"

    @property
    def shape(self) -> msgspec.inspect.Type:
        """The type of its values, None aside."""
        info = msgspec.inspect.type_info(self.type)
        while isinstance(info, msgspec.inspect.Metadata):
            info = info.type
        if isinstance(info, msgspec.inspect.UnionType):
            rest = [each for each in info.types if not isinstance(each, msgspec.inspect.NoneType)]
            info = rest[0] if len(rest) == 1 else info
        while isinstance(info, msgspec.inspect.Metadata):
            info = info.type
        return info

    @property
    def is_list(self) -> bool:
        """Whether it takes several values."""
        kinds = (msgspec.inspect.CollectionType, msgspec.inspect.TupleType)
        return isinstance(self.shape, kinds)

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off."""
        return isinstance(self.shape, msgspec.inspect.BoolType)


def sections() -> dict[str, type[Struct]]:
    """The sections of the tree, in order."""
    return dict(get_type_hints(Settings))


def leaves() -> tuple[Leaf, ...]:
    """All settings, in the order of the tree."""
    return tuple(leaf for section, kind in sections().items() for leaf in _of(section, kind))


def _of(section: str, kind: type[Struct]) -> Iterator[Leaf]:
    hints = get_type_hints(kind, include_extras=True)
    for field in msgspec.structs.fields(kind):
        metas = [arg for arg in _annotations(hints[field.name]) if isinstance(arg, msgspec.Meta)]
        extra = {key: value for meta in metas for key, value in (meta.extra or {}).items()}
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        yield Leaf(
            section=section,
            name=field.name,
            type=hints[field.name],
            default=default,
            description=next((meta.description for meta in reversed(metas) if meta.description), ""),
            flag=extra.get("flag"),
            secret=bool(extra.get("secret")) or _mentions_secret(hints[field.name]),
        )


def _annotations(hint: Any) -> tuple[Any, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def _mentions_secret(hint: Any) -> bool:
    return hint is Secret or any(_mentions_secret(arg) for arg in get_args(hint))
