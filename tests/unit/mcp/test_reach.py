"""Where we go: every address of a name is judged when it is dialled, and the connection goes to one of those."""

import ipaddress
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest

from app.mcp.outbound import VettedTransport
from app.mcp.reach import Reach, Unreachable, networks
from tests.support.mcp_servers import asgi_server

PUBLIC = "93.184.216.34"


class Names:
    """A resolver that answers what the test says, one answer after the other; the last one stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, _host: str, _port: int) -> Sequence[str]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def fetch(reach: Reach, url: str, names: Names | None = None) -> httpx2.Response:
    transport = VettedTransport(reach, resolve=names) if names else VettedTransport(reach)
    async with httpx2.AsyncClient(transport=transport, timeout=30) as client:
        return await client.get(url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
        "169.254.170.2", "100.100.100.200", "192.0.0.192", "168.63.129.16", "224.0.0.1", "255.255.255.255", "::1", "::",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "fe80::1", "fc00::1",
        "fd00:ec2::254", "ff02::1", "2001:0:0:0:0:0:80ff:fffe",
    ],
)  # fmt: skip
def test_what_is_not_the_public_internet_is_refused(address: str) -> None:
    assert Reach().refusal("name", 443, ipaddress.ip_address(address)) is not None


@pytest.mark.parametrize("address", [PUBLIC, "1.1.1.1", "2606:4700::1111", "64:ff9b::5db8:d822"])
def test_the_public_internet_is_not(address: str) -> None:
    assert Reach().refusal("name", 443, ipaddress.ip_address(address)) is None


@pytest.mark.parametrize(
    "reach",
    [
        Reach(networks=networks(["0.0.0.0/0", "::/0"])),
        Reach(endpoints=frozenset([("name", 443)])),
        Reach(loopback=True),
    ],
)
@pytest.mark.parametrize("address", ["169.254.169.254", "100.100.100.200", "::ffff:169.254.169.254", "fd00:ec2::254"])
def test_metadata_services_are_refused_whatever_is_allowed(reach: Reach, address: str) -> None:
    assert reach.refusal("name", 443, ipaddress.ip_address(address)) is not None


def test_an_operator_allows_networks_endpoints_and_loopback() -> None:
    private = ipaddress.ip_address("10.1.2.3")
    assert Reach(networks=networks(["10.1.0.0/16"])).refusal("name", 443, private) is None
    assert Reach(networks=networks(["10.2.0.0/16"])).refusal("name", 443, private) is not None
    assert Reach(endpoints=frozenset([("name", 443)])).refusal("NAME", 443, private) is None
    assert Reach(endpoints=frozenset([("name", 443)])).refusal("name", 80, private) is not None
    assert Reach(loopback=True).refusal("name", 80, ipaddress.ip_address("::ffff:127.0.0.1")) is None
    assert Reach(loopback=True).refusal("name", 80, private) is not None


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "0x7f000001", "2130706433", "127.1", "0177.0.0.1", "localhost", "[::1]", "[::ffff:7f00:1]"]
)
async def test_no_spelling_of_loopback_gets_through(host: str) -> None:
    async with asgi_server(hello) as port:
        with pytest.raises((httpx2.ConnectError, httpx2.InvalidURL)):
            await fetch(Reach(), f"http://{host}:{port}/")


async def test_one_bad_address_among_good_ones_is_enough() -> None:
    with pytest.raises(Unreachable, match="not on the public internet"):
        await fetch(Reach(), "https://mixed.example/", Names([PUBLIC, "10.0.0.1"]))


async def test_a_name_is_judged_anew_whenever_it_is_dialled() -> None:
    rebinding = Names(["127.0.0.1"], ["10.0.0.1"])
    async with asgi_server(hello) as port:
        transport = VettedTransport(Reach(loopback=True), resolve=rebinding)
        async with httpx2.AsyncClient(transport=transport, timeout=30) as client:
            await client.get(f"http://evil.example:{port}/", headers={"connection": "close"})
            with pytest.raises(Unreachable):
                await client.get(f"http://evil.example:{port}/")
        assert rebinding.asked == 2


async def test_the_address_that_was_judged_is_the_one_that_is_dialled() -> None:
    async with asgi_server(hello) as port:
        names = Names(["127.0.0.1"])
        answer = await fetch(Reach(loopback=True), f"http://some.name.example:{port}/", names)
    assert answer.text == "some.name.example"
    assert names.asked == 1


async def test_plain_http_is_not_spoken_on_the_internet() -> None:
    with pytest.raises(Unreachable, match="only https"):
        await fetch(Reach(), "http://plain.example/", Names([PUBLIC]))


async def hello(scope: Any, _receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return
    host = dict(scope["headers"])[b"host"].partition(b":")[0]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": host})
