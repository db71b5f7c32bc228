"""A grant whose refresh token is good for one use is renewed once, however many replicas want it, and never lost."""

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from msgspec import structs

from app.db.engine import Database, with_driver
from app.db.settings import DatabaseSettings
from app.mcp.failure import McpFailure
from app.mcp.sealed_vault import SealedVault
from app.mcp.sealing import KeySealer
from app.mcp.secrets import Grant, Lease
from app.mcp.servers import Bearer
from app.mcp.shelf import Shelf
from tests.support.clocks import HandClock
from tests.support.oauth_world import OAuthWorld, oauth_world
from tests.support.renewing import registered
from tests.support.waiting import eventually

KEY = "5a" * 32
SEALER = KeySealer(lambda: bytes.fromhex(KEY))
ROOT = Path(__file__).parents[3]


class Replicas:
    """Vaults over one database, each with an engine of its own, and the authorization server behind them all."""

    def __init__(self, url: str, world: OAuthWorld, stack: AsyncExitStack) -> None:
        self.url = url
        self.world = world
        self.clock = HandClock()
        self.user = f"key_{uuid.uuid4().hex[:8]}"
        self._stack = stack

    async def database(self) -> Database:
        made = Database(with_driver(self.url), DatabaseSettings())
        self._stack.push_async_callback(made.close)
        return made

    async def vault(self) -> SealedVault:
        network = await self._stack.enter_async_context(httpx2.AsyncHTTPTransport())
        return SealedVault(await self.database(), SEALER, self.clock, network)

    async def granted(self, user: str) -> None:
        """The user has signed in, and the token is about to expire."""
        self.world.live.add("refresh-0")
        grant = Grant(
            issuer=self.world.origin, token_url=f"{self.world.origin}/token", client_id="us", client_secret=None,
            resource=self.world.url, access_token="token-0", refresh_token="refresh-0", expires_at=None,
        )  # fmt: skip
        await (await self.vault()).put(registered(self.world.origin), user, grant)

    async def bearer(self) -> Bearer:
        """A replica's, which knows the grant as it is now."""
        vault = await self.vault()
        credential = await vault.credential(registered(self.world.origin), self.user)
        assert credential.bearer is not None
        return credential.bearer

    async def lease(self, lease: Lease | None, **brought: str) -> Grant:
        """Change who renews, and what they brought; the grant as it was."""
        shelf = Shelf(await self.database(), SEALER)
        kept = await shelf.get("acme", "srv_1", self.user)
        assert kept is not None
        grant = shelf.open(kept)
        assert isinstance(grant, Grant)
        assert await shelf.swap(kept, structs.replace(grant, lease=lease, **brought)) is not None
        return grant


@pytest.fixture
async def replicas(url: str) -> AsyncIterator[Replicas]:
    async with oauth_world() as world, AsyncExitStack() as stack:
        world.rotates = True
        made = Replicas(url, world, stack)
        await made.granted(made.user)
        yield made


async def test_many_replicas_renew_once_and_all_get_the_token(replicas: Replicas) -> None:
    bearers = [await replicas.bearer() for _ in range(4)]
    for turn in (1, 2, 3):
        tokens = await asyncio.gather(*(bearer(renew=True) for bearer in bearers for _ in range(5)))
        assert set(tokens) == {f"token-{turn}"}
    assert (replicas.world.issued, replicas.world.reused) == (3, 0)


@asynccontextmanager
async def process(replicas: Replicas) -> AsyncIterator[asyncio.subprocess.Process]:
    words = ("-m", "tests.support.renewing", replicas.url, KEY, replicas.world.origin)
    pipe = asyncio.subprocess.PIPE
    started = await asyncio.create_subprocess_exec(sys.executable, *words, cwd=ROOT, stdin=pipe, stdout=pipe)
    try:
        yield started
    finally:
        assert started.stdin is not None
        started.stdin.close()
        await started.wait()


async def _line(started: asyncio.subprocess.Process) -> str:
    assert started.stdout is not None
    async with asyncio.timeout(120):
        return (await started.stdout.readline()).decode().strip()


@pytest.mark.slow
async def test_two_processes_do_not_lose_the_grant(replicas: Replicas) -> None:
    await replicas.granted("key_1")
    async with process(replicas) as one, process(replicas) as other:
        assert [await _line(each) for each in (one, other)] == ["ready", "ready"]
        for turn in range(1, 6):
            for each in (one, other):
                assert each.stdin is not None
                each.stdin.write(b"renew\n")
            assert {await _line(each) for each in (one, other)} == {f"token-{turn}"}
    assert (replicas.world.issued, replicas.world.reused) == (5, 0)


async def test_a_caller_who_leaves_does_not_take_the_grant_along(replicas: Replicas) -> None:
    replicas.world.hold = asyncio.Event()
    bearer = await replicas.bearer()
    caller = asyncio.create_task(bearer(renew=True))
    await eventually(lambda: replicas.world.holding == 1)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    replicas.world.hold.set()
    assert await bearer() == "token-1"
    other = await replicas.bearer()
    assert await other(renew=True) == "token-2"
    assert replicas.world.reused == 0


async def test_closing_waits_for_what_is_being_issued(replicas: Replicas) -> None:
    replicas.world.hold = asyncio.Event()
    vault = await replicas.vault()
    credential = await vault.credential(registered(replicas.world.origin), replicas.user)
    assert credential.bearer is not None
    caller = asyncio.create_task(credential.bearer(renew=True))
    await eventually(lambda: replicas.world.holding == 1)
    caller.cancel()
    closing = asyncio.create_task(vault.close())
    await asyncio.gather(caller, return_exceptions=True)
    replicas.world.hold.set()
    await closing
    assert await (await replicas.bearer())() == "token-1"


async def test_who_leased_it_and_died_is_not_waited_for_longer_than_the_lease(replicas: Replicas) -> None:
    await replicas.lease(Lease("dead", replicas.clock.now() + 30))
    bearer = await replicas.bearer()
    waiting = asyncio.create_task(bearer(renew=True))
    await asyncio.sleep(0.1)
    assert (waiting.done(), replicas.world.issued) == (False, 0)
    replicas.clock.at += 31
    assert await waiting == "token-1"


async def test_who_was_overtaken_writes_nothing(replicas: Replicas) -> None:
    """A slow replica's token arrives after another has leased the grant, and must not replace what that one brings."""
    replicas.world.hold = asyncio.Event()
    slow = asyncio.create_task((await replicas.bearer())(renew=True))
    await eventually(lambda: replicas.world.holding == 1)
    await replicas.lease(Lease("another", replicas.clock.now() + 1))
    replicas.world.hold.set()
    await asyncio.sleep(0.2)
    grant = await replicas.lease(None, access_token="token-of-another")
    assert (grant.access_token, grant.refresh_token, slow.done()) == ("token-0", "refresh-0", False)
    assert await slow == "token-of-another"


async def test_what_was_sealed_anew_meanwhile_is_still_renewed(replicas: Replicas) -> None:
    replicas.world.hold = asyncio.Event()
    renewing = asyncio.create_task((await replicas.bearer())(renew=True))
    await eventually(lambda: replicas.world.holding == 1)
    shelf = Shelf(await replicas.database(), SEALER)
    kept = await shelf.get("acme", "srv_1", replicas.user)
    assert kept is not None
    assert await shelf.swap(kept, shelf.open(kept)) is not None
    replicas.world.hold.set()
    assert await renewing == "token-1"
    assert await (await replicas.bearer())(renew=True) == "token-2"


async def test_a_refusal_frees_the_grant_and_a_replacement_is_not_overwritten(replicas: Replicas) -> None:
    replicas.world.fails = True
    bearer = await replicas.bearer()
    with pytest.raises(McpFailure, match="invalid_grant"):
        await bearer(renew=True)
    replicas.world.fails = False
    assert await bearer(renew=True) == "token-1"
    replicas.world.hold = asyncio.Event()
    renewing = asyncio.create_task(bearer(renew=True))
    await eventually(lambda: replicas.world.holding == 1)
    await replicas.granted(replicas.user)
    replicas.world.hold.set()
    with pytest.raises(McpFailure, match="replaced or revoked"):
        await renewing
    assert await (await replicas.bearer())() == "token-0"
