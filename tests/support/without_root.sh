#!/usr/bin/env bash
# Whether the tests find a PostgreSQL where nobody may install one; for root, on Linux. A clone of what is committed here
# is set up by the user `nobody`, where the system's PostgreSQL is not to be seen, and tests run on what comes of it:
# tests/support/without_root.sh [PYTEST'S ARGUMENTS]
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ "${1:-}" != --apart ]; then
    home=$(mktemp -d)
    trap 'rm -rf "$home"' EXIT
    git clone --quiet . "$home/shepherd"
    chown -R nobody "$home"
    unshare --mount "$0" --apart "$home" "$@"
    exit
fi

home=$2
shift 2
mount --make-rprivate /
for place in /usr/lib/postgresql /usr/pgsql-*; do
    if [ -d "$place" ]; then mount -t tmpfs tmpfs "$place"; fi
done
cd "$home/shepherd"
export HOME=$home PATH=/usr/local/bin:/usr/bin:/bin
setpriv --reuid=nobody --clear-groups make --silent .venv/.dev
CI=yes setpriv --reuid=nobody --clear-groups tests/support/install_postgres.sh
setpriv --reuid=nobody --clear-groups .venv/bin/pytest -n0 -rs "${@:-tests/contract/history/test_history_contract.py}"
