"""How the API of a cluster is reached: as a pod's service account, or by a kubeconfig file.

Tokens of service accounts live for an hour or so and are replaced in their file, so the file is read for each request.
"""

from __future__ import annotations

import base64
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class NoAccess(Exception):
    """Nothing says how to reach a cluster, or what says so cannot be used."""


class Access(Struct, frozen=True):
    """Where the API is, how its certificate is checked, and who asks."""

    server: str
    tls: ssl.SSLContext | None = None
    bearer: str | None = None
    bearer_file: Path | None = None

    def __repr__(self) -> str:
        return f"Access(server={self.server!r})"

    def headers(self) -> dict[str, str]:
        """What says who asks, read anew. Raises `OSError` when the token's file cannot be read."""
        token = self.bearer if self.bearer_file is None else self.bearer_file.read_text("utf-8").strip()
        return {} if token is None else {"Authorization": f"Bearer {token}"}


class _Named(Struct, frozen=True):
    name: str


class _Context(Struct, frozen=True):
    cluster: str
    user: str = ""


class _NamedContext(_Named, frozen=True):
    context: _Context


class _Cluster(Struct, frozen=True, rename="kebab"):
    server: str
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool = False


class _NamedCluster(_Named, frozen=True):
    cluster: _Cluster


class _User(Struct, frozen=True, rename="kebab"):
    token: str | None = None
    token_file: str | None = msgspec.field(default=None, name="tokenFile")
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    exec: object = None


class _NamedUser(_Named, frozen=True):
    user: _User


class _Config(Struct, frozen=True):
    clusters: Sequence[_NamedCluster]
    contexts: Sequence[_NamedContext]
    current_context: str = msgspec.field(name="current-context")
    users: Sequence[_NamedUser] = ()


def in_cluster(variables: Mapping[str, str], account: Path = ACCOUNT) -> Access:
    """As the service account of the pod we run in. Raises `NoAccess` outside of a pod."""
    host, port = variables.get("KUBERNETES_SERVICE_HOST"), variables.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise NoAccess("not in a pod: KUBERNETES_SERVICE_HOST is not set; name a kubeconfig file")
    try:
        tls = ssl.create_default_context(cafile=str(account / "ca.crt"))
    except OSError as error:
        raise NoAccess(f"{account / 'ca.crt'}: {error}") from error
    return Access(f"https://{f'[{host}]' if ':' in host else host}:{port}", tls, bearer_file=account / "token")


def by_kubeconfig(file: Path) -> Access:
    """By the current context of `file`. Raises `NoAccess`; programs that make tokens (`exec`) are not run."""
    try:
        config = msgspec.yaml.decode(file.read_bytes(), type=_Config)
        context = next(each.context for each in config.contexts if each.name == config.current_context)
        cluster = next(each.cluster for each in config.clusters if each.name == context.cluster)
        user = next((each.user for each in config.users if each.name == context.user), _User())
        if user.exec is not None:
            raise NoAccess(f"{file}: user '{context.user}' gets its token from a program, which is not supported")
        return Access(
            cluster.server.rstrip("/"),
            _tls(file.parent, cluster, user) if cluster.server.startswith("https://") else None,
            user.token,
            None if user.token_file is None else file.parent / user.token_file,
        )
    except StopIteration:
        raise NoAccess(f"{file}: the current context, or its cluster, is not there") from None
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise NoAccess(f"{file}: {error}") from error


def _tls(base: Path, cluster: _Cluster, user: _User) -> ssl.SSLContext:
    """Paths in the file are relative to it."""
    data = cluster.certificate_authority_data
    authority = cluster.certificate_authority
    tls = ssl.create_default_context(
        cafile=None if authority is None or data else str(base / authority),
        cadata=base64.b64decode(data).decode("ascii") if data else None,
    )
    if cluster.insecure_skip_tls_verify:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    # The ssl module reads a certificate and its key from files only.
    with tempfile.TemporaryDirectory() as scratch:
        certificate = _file(base, user.client_certificate, user.client_certificate_data, Path(scratch, "crt"))
        if certificate is not None:
            tls.load_cert_chain(certificate, _file(base, user.client_key, user.client_key_data, Path(scratch, "key")))
    return tls


def _file(base: Path, name: str | None, data: str | None, scratch: Path) -> Path | None:
    if data:
        scratch.write_bytes(base64.b64decode(data))
        return scratch
    return None if name is None else base / name
