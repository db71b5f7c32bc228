"""The log of what was done: whole, in order, and each tenant's own."""

import uuid

import pytest

from app.db.engine import Database
from app.tenancy.audit import AuditLog, Entry, Filter


def entry(tenant: str, at: float, **fields: object) -> Entry:
    return Entry(**{"tenant": tenant, "at": at, "principal": "key_1", "action": "tool.call", **fields})  # pyright: ignore[reportArgumentType]


@pytest.fixture
def tenant() -> str:
    return f"t{uuid.uuid4().hex[:8]}"


async def test_what_was_added_is_read_newest_first(database: Database, tenant: str) -> None:
    log = AuditLog(database)
    await log.append([entry(tenant, 1, tool="a"), entry(tenant, 2, tool="b", arguments='{"x":1}')])
    await log.append([entry(tenant, 3, tool="c"), entry("somebody-else", 3, tool="d")])
    await log.append([])
    page = await log.read(tenant, Filter(), limit=2)
    assert [each.tool for each in page] == ["c", "b"]
    assert page[1].arguments == '{"x":1}'
    assert [each.tool for each in await log.read(tenant, Filter(), limit=2, before=page[-1].number)] == ["a"]


async def test_filters_agree_with_everything(database: Database, tenant: str) -> None:
    log = AuditLog(database)
    await log.append([entry(tenant, 1, tool="a", server="s"), entry(tenant, 2, tool="a"), entry(tenant, 3, tool="b")])
    assert [each.at for each in await log.read(tenant, Filter(tool="a"), limit=9)] == [2, 1]
    assert [each.at for each in await log.read(tenant, Filter(tool="a", server="s"), limit=9)] == [1]
    assert [each.at for each in await log.read(tenant, Filter(since=2, until=3), limit=9)] == [2]
    assert await log.read(tenant, Filter(action="else"), limit=9) == []
    await log.append([entry(tenant, 4, decision="ask", outcome="ok"), entry(tenant, 5, decision="ask")])
    assert [each.at for each in await log.read(tenant, Filter(decision="ask"), limit=9)] == [5, 4]
    assert [each.at for each in await log.read(tenant, Filter(decision="ask", outcome="ok"), limit=9)] == [4]


async def test_an_export_is_everything_oldest_first(database: Database, tenant: str) -> None:
    log = AuditLog(database)
    await log.append([entry(tenant, float(at)) for at in range(1203)])
    pages = [page async for page in log.export(tenant, Filter())]
    assert [each.at for page in pages for each in page] == [float(at) for at in range(1203)]
    assert [len(page) for page in pages] == [500, 500, 203]
