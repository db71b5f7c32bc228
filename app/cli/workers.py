"""`shepherd worker`: look at the fleet of a running gateway, and change it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from app.settings.sources import environment

_KEY = "SHEPHERD_API_KEY"
_FIELDS = ("id", "url", "status", "circuit", "inflight", "held", "others", "cached_blocks", "cache_events", "reason")


def add_commands(commands: Any) -> None:
    """Give the command line `worker list`, `add`, `update`, `drain`, `undrain`, `remove` and `policy`."""
    top = commands.add_parser("worker", help="show and change the workers of a running gateway", allow_abbrev=False)
    of_worker = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _command(of_worker, "list", _list, "show the workers")
    add = _command(of_worker, "add", _add, "add a worker")
    add.add_argument("worker", help="base URL of the worker")
    update = _command(of_worker, "update", _update, "change what is known of a worker")
    update.add_argument("worker", help="id or URL of the worker")
    for each in (add, update):
        each.add_argument("--worker-key", metavar="KEY", help="bearer token that the worker wants")
        each.add_argument(
            "--kv-events", metavar="ADDRESS", help="where its engine publishes cache events, tcp://host:port"
        )
    for name, run, about in (
        ("drain", _drain, "give a worker no new turns"),
        ("undrain", _undrain, "take a drained worker back"),
        ("remove", _remove, "forget a worker"),
    ):
        _command(of_worker, name, run, about).add_argument("worker", help="id or URL of the worker")
    policy = _command(of_worker, "policy", _policy, "show or change how workers are chosen")
    policy.add_argument("policy", nargs="?", help="the policy from now on")
    policy.add_argument("--model", help="only for this model")
    policy.add_argument("--unset", action="store_true", help="the model's policy is that of the others again")


def _command(commands: Any, name: str, run: Any, about: str) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".", allow_abbrev=False)
    made.add_argument("--url", default="http://127.0.0.1:30000", help="the gateway's URL (default: %(default)s)")
    made.add_argument("--key", help=f"API key with the scope admin (default: the variable {_KEY})")
    made.set_defaults(run=run)
    return made


def _list(parsed: argparse.Namespace) -> int:
    return _ask(parsed, "GET", "/workers")


def _add(parsed: argparse.Namespace) -> int:
    return _change(parsed, "POST", "/workers", {"url": parsed.worker, **_told(parsed)})


def _update(parsed: argparse.Namespace) -> int:
    return _change(parsed, "PATCH", _path(parsed), _told(parsed))


def _told(parsed: argparse.Namespace) -> dict[str, str]:
    """What is said of a worker; what is not said stays as it is."""
    said = {"api_key": parsed.worker_key, "kv_events": parsed.kv_events}
    return {name: value for name, value in said.items() if value is not None}


def _drain(parsed: argparse.Namespace) -> int:
    return _change(parsed, "PATCH", _path(parsed), {"draining": True})


def _undrain(parsed: argparse.Namespace) -> int:
    return _change(parsed, "PATCH", _path(parsed), {"draining": False})


def _change(parsed: argparse.Namespace, method: str, path: str, body: Mapping[str, object]) -> int:
    """Change a worker, and show what it is then."""
    return 1 if _send(parsed, method, path, body) is None else _ask(parsed, "GET", _path(parsed))


def _remove(parsed: argparse.Namespace) -> int:
    return _ask(parsed, "DELETE", _path(parsed))


def _policy(parsed: argparse.Namespace) -> int:
    if parsed.unset and (parsed.model is None or parsed.policy is not None):
        print("shepherd: --unset needs --model, and no policy", file=sys.stderr)
        return 2
    if parsed.policy is None and not parsed.unset:
        return _ask(parsed, "GET", "/routing/policy")
    change = {"policy": parsed.policy} if parsed.model is None else {"models": {parsed.model: parsed.policy}}
    return _ask(parsed, "PUT", "/routing/policy", change)


def _path(parsed: argparse.Namespace) -> str:
    return "/workers/" + quote(parsed.worker, safe=":/")


def _ask(parsed: argparse.Namespace, method: str, path: str, body: Mapping[str, object] | None = None) -> int:
    said = _send(parsed, method, path, body)
    if said is None:
        return 1
    for row in said.get("workers", [said]):
        shown = [name for name in row if (name in _FIELDS or "url" not in row) and row[name] is not None]
        print("  ".join(f"{name}={_word(row[name])}" for name in shown))
    return 0


def _send(parsed: argparse.Namespace, method: str, path: str, body: Mapping[str, object] | None) -> Any:
    """The gateway's answer; None when it is an error, which is shown."""
    content = None if body is None else msgspec.json.encode(body)
    key = parsed.key or environment().get(_KEY)
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    try:
        answer = httpx.request(method, parsed.url.rstrip("/") + path, content=content, headers=headers, timeout=30)
        said = msgspec.json.decode(answer.content)
    except (httpx.HTTPError, httpx.InvalidURL, msgspec.DecodeError, UnicodeDecodeError) as error:
        print(f"shepherd: {parsed.url} does not answer as a gateway does: {error}", file=sys.stderr)
        return None
    if answer.is_error:
        try:
            message = said["error"]["message"]
        except (KeyError, TypeError):
            message = f"{parsed.url} answers with HTTP status {answer.status_code}"
        print(f"shepherd: {message}", file=sys.stderr)
        return None
    return said


def _word(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
