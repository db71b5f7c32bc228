"""What `shepherd tenant export|erase` and `shepherd seal …` do."""

from __future__ import annotations

import argparse
import sys

from app.boot import erasure
from app.cli.running import result_of


def export_tenant(parsed: argparse.Namespace) -> int:
    """Print what is kept of a tenant or one of its users."""

    def write(line: bytes) -> None:
        sys.stdout.buffer.write(line + b"\n")

    result_of(parsed, lambda settings: erasure.export(settings, parsed.tenant, parsed.end_user, write))
    sys.stdout.buffer.flush()
    return 0


def erase_tenant(parsed: argparse.Namespace) -> int:
    """Forget a tenant or one of its users."""
    print(result_of(parsed, lambda settings: erasure.erase(settings, parsed.tenant, parsed.end_user)))
    return 0


def rotate(parsed: argparse.Namespace) -> int:
    """Seal all tenants' keys anew."""
    print(result_of(parsed, erasure.rotate))
    return 0


def upgrade(parsed: argparse.Namespace) -> int:
    """Seal what is not sealed as it should be."""
    print(result_of(parsed, erasure.seal_all))
    return 0


def renew_key(parsed: argparse.Namespace) -> int:
    """Give a tenant a new key."""
    print(result_of(parsed, lambda settings: erasure.renew(settings, parsed.tenant)))
    return 0
