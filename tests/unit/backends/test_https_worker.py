"""A worker behind TLS, reached by a process of its own: the certificates a process trusts are fixed when it starts."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import ssl
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.unit.backends.raw_server import STREAM_HEAD, answering, chunked, raw_server, sse

ASK = """
import asyncio, sys
from app.backends.settings import BackendSettings
from app.backends.workers import Workers
from app.turn.ids import CountedIds
from app.turn.items import Message, Text
from app.turn.request import TurnRequest

async def main():
    workers = Workers(BackendSettings(), CountedIds())
    request = TurnRequest(model="m", items=(Message("user", (Text("Hello"),)),))
    for _ in range(2):
        async for event in workers.connect(sys.argv[1], api_key="k").stream(request):
            print(event)
    await workers.close()

asyncio.run(main())
"""


def certificate(directory: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that signs itself, and a server's context that uses it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "worker")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=365 * 100))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = directory / "worker.pem", directory / "worker.key"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(public, private)
    return public, context


@pytest.mark.slow
@pytest.mark.parametrize("trusted", [True, False])
async def test_a_certificate_is_checked(tmp_path: Path, trusted: bool) -> None:
    public, context = certificate(tmp_path)
    said = sse({"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}, "[DONE]")
    async with raw_server(answering(STREAM_HEAD, chunked(said)), context) as server:
        env = {**os.environ, **({"SSL_CERT_FILE": str(public)} if trusted else {})}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ASK, server.url, env=env, stdout=asyncio.subprocess.PIPE, stderr=None
        )
        output, _ = await process.communicate()
        lines = output.decode().splitlines()
        if trusted:
            assert [line.partition("(")[0] for line in lines] == ["TextDelta", "ItemDone", "TurnDone"] * 2
            assert b"authorization: bearer k" in server.requests[0].lower()
        else:
            assert all("upstream_unreachable" in line and "TLS" in line for line in lines)
            assert server.requests == []
        assert len(lines) == (6 if trusted else 2)
