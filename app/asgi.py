"""`uvicorn --factory app.asgi:create_app`: settings come from the environment and the file it names."""

from __future__ import annotations

from litestar.types import ASGIApp

from app.boot.factory import LifespanApp
from app.settings.load import load
from app.telemetry import logs


def create_app() -> ASGIApp:
    """The gateway. Raises `SettingsError`."""
    settings = load().settings
    logs.configure(settings.server.log_level, as_json=settings.server.log_json)
    return LifespanApp(settings)
