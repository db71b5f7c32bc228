"""`shepherd mcp …`: the admin API of MCP servers, from the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import quote

import httpx

from app.settings.sources import environment

_SERVERS = "/admin/v1/mcp/servers"
_POLICY = "/admin/v1/mcp/policy"
_KEY = "SHEPHERD_API_KEY"
_AUDITED = ("action", "server", "tool", "principal", "decision", "outcome")
_MOMENTS = ("since", "until")


class Refusal(Exception):
    """The server said no, or said nothing."""


def add_commands(commands: Any) -> None:
    """Add the command to the command line."""
    mcp = commands.add_parser("mcp", help="manage a tenant's MCP servers on a running gateway", allow_abbrev=False)
    of_mcp = mcp.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, work: Callable[[argparse.Namespace], Any], about: str, *arguments: str) -> Any:
        made = of_mcp.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".", allow_abbrev=False)
        made.add_argument("--url", default="http://127.0.0.1:30000", help="where the gateway is (default: %(default)s)")
        made.add_argument("--key", help=f"API key with the scope admin (default: the variable {_KEY})")
        made.set_defaults(run=partial(_run, work))
        for argument in arguments:
            made.add_argument(argument)
        return made

    one = f"{_SERVERS}/{{label}}"
    add("list", _call("GET", _SERVERS, listed=True), "list the servers requests can name")
    add("show", _call("GET", one), "show a server", "label")
    made = add("add", _add, "register a server", "label", "server_url")
    made.add_argument("--config", type=_json, default={}, help="more of its configuration: '{\"rules\": {…}}'")
    changed = add("set", _set, "replace a server's configuration", "label")
    changed.add_argument("config", type=_json, help='the whole configuration: \'{"url": …, "rules": {…}}\'')
    add("remove", _call("DELETE", one), "forget a server", "label")
    add("enable", _call("POST", one + "/enable"), "switch a server on", "label")
    add("disable", _call("POST", one + "/disable"), "switch a server off, at once", "label")
    add("probe", _call("POST", one + "/probe"), "test the connection", "label")
    add("tools", _call("GET", one + "/tools", listed=True), "list a server's tools", "label")
    add("accept", _accept, "accept a tool's changed definition", "label", "tool", "digest")
    secret = add(
        "set-credential", _set_credential, "keep what a server is sent; it is read from stdin, as JSON", "label"
    )
    secret.add_argument("--mine", action="store_true", help="for the key's own principal, not for the whole tenant")
    add("policy", _call("GET", _POLICY), "show the tenant's policy")
    replaced = add("set-policy", _set_policy, "replace the tenant's policy")
    replaced.add_argument("policy", type=_json, help='the whole policy: \'{"server_urls": "deny"}\'')
    add("approvals", _call("GET", "/admin/v1/approvals/", listed=True), "list calls that wait for approval")
    add("approve", _call("POST", "/admin/v1/approvals/{id}/approve"), "agree to a call of somebody else", "id")
    add(
        "elicitations",
        _call("GET", "/admin/v1/elicitations/", listed=True),
        "list calls that wait for their user's answers",
    )
    add("deny", _call("POST", "/admin/v1/approvals/{id}/deny"), "refuse a call of somebody else", "id")
    exported = add("export-audit", _export, "write out what was done, the oldest first, as JSON lines or CSV")
    exported.add_argument("--format", choices=("jsonl", "csv"), default="jsonl", help="(default: %(default)s)")
    exported.add_argument("--output", help="a file to write to, which is replaced (default: stdout)")
    for name in _AUDITED:
        exported.add_argument(f"--{name}", help=f"only entries of this {name}")
    for name in _MOMENTS:
        exported.add_argument(f"--{name}", type=_moment, help="a moment: 2026-11-29T12:00:00Z, or seconds since 1970")
    add("audit", _call("GET", "/admin/v1/audit/", listed=True), "show what was done last")


def _call(method: str, path: str, *, listed: bool = False) -> Callable[[argparse.Namespace], Any]:
    """Ask for `path`, with the arguments of the command line in it; a list is shown without what is around it."""

    def work(at: argparse.Namespace) -> Any:
        parts = {name: quote(str(value), safe="") for name, value in vars(at).items()}
        said = _ask(at, method, path.format_map(parts))
        return said["data"] if listed else said

    return work


def _run(work: Callable[[argparse.Namespace], Any], parsed: argparse.Namespace) -> int:
    try:
        said = work(parsed)
    except Refusal as refusal:
        print(f"shepherd: {refusal}", file=sys.stderr)
        return 1
    if said is not None:
        print(json.dumps(said, indent=2, ensure_ascii=False))
    return 0


def _add(at: argparse.Namespace) -> Any:
    body = {"label": at.label, "config": {"url": at.server_url, **at.config}}
    return _ask(at, "POST", _SERVERS, body)


def _set(at: argparse.Namespace) -> Any:
    now = _ask(at, "GET", _server(at))
    body = {"config": at.config, "enabled": now["enabled"]}
    return _ask(at, "PUT", _server(at), body, version=now["version"])


def _accept(at: argparse.Namespace) -> Any:
    return _ask(at, "POST", f"{_server(at)}/tools/accept", {"tool": at.tool, "digest": at.digest})


def _set_credential(at: argparse.Namespace) -> Any:
    where = "mine" if at.mine else "shared"
    try:
        secret = json.load(sys.stdin)
    except ValueError:
        # What is wrong with it could quote it.
        raise Refusal("what is on the standard input is not JSON") from None
    return _ask(at, "PUT", f"{_server(at)}/credentials/{where}", secret)


def _set_policy(at: argparse.Namespace) -> Any:
    return _ask(at, "PUT", _POLICY, at.policy, version=_ask(at, "GET", _POLICY)["version"])


def _export(at: argparse.Namespace) -> None:
    asked = {"format": at.format} | {
        name: value for name in (*_AUDITED, *_MOMENTS) if (value := getattr(at, name)) is not None
    }
    with ExitStack() as stack:
        client = stack.enter_context(_client(at))
        answer = stack.enter_context(client.stream("GET", "/admin/v1/audit/export", params=asked))
        if answer.is_error:
            answer.read()
            raise _refusal(answer)
        out = sys.stdout.buffer if at.output is None else stack.enter_context(_file(at.output))
        for chunk in answer.iter_bytes():
            out.write(chunk)
        out.flush()


def _server(at: argparse.Namespace) -> str:
    return f"{_SERVERS}/{quote(at.label, safe='')}"


def _file(name: str) -> BinaryIO:
    try:
        return Path(name).open("wb")
    except OSError as error:
        raise Refusal(f"cannot write {name}: {error.strerror}") from error


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError("a JSON object is expected")
    return cast("dict[str, Any]", found)


def _moment(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("a moment is expected: 2026-11-29T12:00:00Z, or seconds since 1970") from None
    return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()


@contextmanager
def _client(at: argparse.Namespace) -> Generator[httpx.Client]:
    """A client of the gateway. Raises `Refusal` for one that does not answer, or stops in the middle."""
    key = at.key or environment().get(_KEY)
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    try:
        with httpx.Client(base_url=at.url, timeout=60, trust_env=False, headers=headers) as client:
            yield client
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Refusal(f"{at.url} does not answer: {error}") from error


def _refusal(answer: httpx.Response) -> Refusal:
    try:
        return Refusal(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return Refusal(f"HTTP status {answer.status_code}")


def _ask(at: argparse.Namespace, method: str, path: str, body: Any = None, *, version: int | None = None) -> Any:
    """Ask the gateway. Raises `Refusal`."""
    headers = {} if version is None else {"if-match": f'"{version}"'}
    with _client(at) as client:
        answer = client.request(method, path, json=body, headers=headers)
    if answer.is_error:
        raise _refusal(answer)
    try:
        return answer.json() if answer.content else None
    except ValueError:
        raise Refusal(f"{at.url} does not answer as a gateway does") from None
