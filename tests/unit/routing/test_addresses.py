"""Addresses: two ways to write one are the same, and what is none is refused."""

from __future__ import annotations

import pytest

from app.routing.addresses import events_address, worker_url
from app.turn.errors import InvalidRequest


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("http://h", "http://h"),
        ("http://h/", "http://h"),
        ("HTTP://H:80/v1/", "http://h"),
        ("https://h:443", "https://h"),
        ("https://h:80", "https://h:80"),
        ("http://h:8000/v1", "http://h:8000"),
        ("http://h/models/Llama/", "http://h/models/Llama"),
        ("http://[0:0::1]:8000", "http://[::1]:8000"),
        ("http://[FD00::1]", "http://[fd00::1]"),
        ("http://gpu_1.models.svc", "http://gpu_1.models.svc"),
    ],
)
def test_a_url_has_one_form(written: str, url: str) -> None:
    assert worker_url(written) == url
    assert worker_url(url) == url


@pytest.mark.parametrize(
    "text",
    ["", "h:80", "ftp://h", "http://", "http://:80", "http://[::1", "http://[h]", "http://h:0", "http://h:99999",
     "http://h:x", "http://a b", "http://h\n", "http://h\0", " http://h", "http://é", "http://u:p@h", "http://u@h",
     "http://h?x=1", "http://h#x", "http://h?"],
)  # fmt: skip
def test_what_is_no_workers_url(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        worker_url(text)
    assert refused.value.param == "url"


@pytest.mark.parametrize(
    "address",
    ["tcp://h:5557", "tcp://10.0.0.7:5557,tcp://10.0.0.7:5558", "tcp://[::1]:5557", "ipc:///run/kv",
     "http://h:8000/kv_cache_events", "https://h/kv_cache_events", "grpc://h:50051", "grpcs://h:50051"],
)  # fmt: skip
def test_where_events_may_come_from(address: str) -> None:
    assert events_address(address) == address


@pytest.mark.parametrize(
    "text",
    ["", "h:5557", "tcp://", "tcp://h", "tcp://h:0", "tcp://h:99999", "tcp://*:5557", "tcp://h:1,", "tcp://h:1,h:2",
     "tcp://h:1,tcp://h:2,tcp://h:3", "tcp://h:1,http://h:2", "http://h:1,http://h:2", "http://", "grpc://", "grpc://h",
     "inproc://x", "ipc://", "tcp://h:1 ", "udp://h:1"],
)  # fmt: skip
def test_where_they_cannot(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        events_address(text)
    assert refused.value.param == "kv_events"
