"""The official conformance suite: against our client, and through `/mcp` against a server behind the gateway.

What is not asked: everything about resources, prompts, completion and logging, which are not passed on; elicitation
through `/mcp`, which has no user to ask (our client has one, and is asked); and of signing in what the SDK does not
know either (DPoP, workload identity). Needs npm's packages: `make test-mcp`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JS = ROOT / "tests" / "js"
NODE = JS / "node_modules" / ".bin" / "node"
SUITE = JS / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(not (NODE.exists() and SUITE.exists()), reason="not installed: make test-mcp does it"),
]

# Scenario and how many of its checks are known not to pass, with why.
AS_SERVER = {
    "2025-11-25": {
        "server-initialize": 0,
        "ping": 0,
        "tools-list": 0,
        "tools-call-simple-text": 0,
        "tools-call-image": 0,
        "tools-call-audio": 0,
        "tools-call-embedded-resource": 0,
        "tools-call-mixed-content": 0,
        "tools-call-error": 0,
        "tools-call-with-progress": 0,
        "server-sse-multiple-streams": 0,
        "dns-rebinding-protection": 0,
    },
    "2026-07-28": {
        # Four need tools that ask the client for something, or log to it.
        "server-stateless": 4,
        "tools-list": 0,
        "tools-call-simple-text": 0,
        "tools-call-image": 0,
        "tools-call-audio": 0,
        "tools-call-embedded-resource": 0,
        "tools-call-mixed-content": 0,
        "tools-call-error": 0,
        "tools-call-with-progress": 0,
        "server-sse-multiple-streams": 0,
        "dns-rebinding-protection": 0,
        "http-header-validation": 0,
        # Three ask for prompts and resources.
        "caching": 3,
    },
}
AS_CLIENT = {
    "2025-11-25": (
        "initialize",
        "tools_call",
        "sse-retry",
        "json-schema-2020-12-preservation",
        "elicitation-sep1034-client-defaults",
    ),
    "2026-07-28": (
        "tools_call",
        "sep-2322-client-request-state",
        "request-metadata",
        "http-standard-headers",
        "http-custom-headers",
        "http-invalid-tool-headers",
        "json-schema-ref-no-deref",
        "json-schema-2020-12-preservation",
    ),
}
SIGNING_IN = (
    "metadata-default",
    "metadata-var1",
    "metadata-var2",
    "metadata-var3",
    "scope-from-www-authenticate",
    "scope-from-scopes-supported",
    "scope-omitted-when-undefined",
    "scope-step-up",
    "scope-retry-limit",
    "token-endpoint-auth-basic",
    "token-endpoint-auth-post",
    "token-endpoint-auth-none",
    "pre-registration",
    "resource-mismatch",
    "offline-access-scope",
    "offline-access-not-supported",
    "authorization-server-migration",
    "iss-supported",
    "iss-not-advertised",
    "iss-supported-missing",
    "iss-wrong-issuer",
    "iss-unexpected",
    "iss-normalized",
    "metadata-issuer-mismatch",
    "client-credentials-basic",
)
# What is known not to pass, with why: a test of it fails as soon as it does.
NOT_SIGNING_IN = (
    # Passes but for a warning: it wants the client to be known by one fixed address, and ours has its own.
    "basic-cimd",
    # A client proves itself by a secret only.
    "client-credentials-jwt",
    # Nobody is signed in elsewhere on a user's behalf.
    "enterprise-managed-authorization",
)


def suite(*words: str) -> tuple[int, int, str]:
    """Run the suite; how many checks passed and failed, and all it said."""
    preload = f"--require {JS / 'conformance.cjs'}"
    command = [str(NODE), *preload.split(), str(SUITE), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)
    said = done.stdout + done.stderr
    found = re.search(r"Passed: (\d+)/\d+, (\d+) failed", said)
    assert found, said
    return int(found[1]), int(found[2]), said


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The gateway's `/mcp`."""
    command = [sys.executable, "-m", "tests.conformance.through_gateway", str(tmp_path_factory.mktemp("gateway"))]
    with subprocess.Popen(command, cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            yield running.stdout.readline().strip()
        finally:
            running.terminate()


@pytest.mark.parametrize(
    ("version", "scenario", "known"),
    [(version, name, known) for version, names in AS_SERVER.items() for name, known in names.items()],
)
def test_through_the_gateway(address: str, version: str, scenario: str, known: int) -> None:
    _, failed, said = suite("server", "--url", address, "--scenario", scenario, "--spec-version", version)
    assert failed == known, said


@pytest.mark.parametrize(
    ("version", "scenario"), [(version, name) for version, names in AS_CLIENT.items() for name in names]
)
def test_as_a_client(version: str, scenario: str) -> None:
    client = f"{sys.executable} -m tests.conformance.client"
    words = ("client", "--command", client, "--scenario", scenario, "--spec-version", version, "--timeout", "60000")
    passed, failed, said = suite(*words)
    assert failed == 0, said
    assert passed > 0, said


@pytest.mark.parametrize("scenario", [*SIGNING_IN, *NOT_SIGNING_IN])
def test_signing_in(scenario: str) -> None:
    client = f"{sys.executable} -m tests.conformance.signing_in"
    words = ("client", "--command", client, "--scenario", f"auth/{scenario}", "--spec-version", "2026-07-28")
    _, _, said = suite(*words, "--timeout", "60000", "--force")
    # Its last word also counts a client that gave up where it should not, and what only ought to be.
    assert ("OVERALL: PASSED" in said) == (scenario in SIGNING_IN), said
