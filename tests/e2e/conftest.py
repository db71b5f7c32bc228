"""What tests of whole processes share."""

from __future__ import annotations

import pytest

from tests.contract.history.postgres_server import running_or_skip

postgres = pytest.fixture(scope="module")(running_or_skip)
