"""The processes of the fleet bench: simulated workers, and a gateway in front of them."""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench.agent import cpu_seconds
from bench.fleet_agents import Way
from tests.support.ports import free_block, free_port
from tests.support.processes import SHEPHERD, bare_process, wait_until_ok


@contextmanager
def fleet(options: argparse.Namespace, stack: ExitStack) -> Iterator[tuple[list[str], list[subprocess.Popen[bytes]]]]:
    """A fresh fleet; its URLs and processes. A fleet of which one is killed has a process each."""
    apart = options.kill
    base, urls, processes = free_block(options.workers, random.Random()), list[str](), list[subprocess.Popen[bytes]]()
    common = ["--engine", "batch", "--block-size", "64", "--cache-tokens", str(options.cache_tokens)]
    for number in range(options.workers if apart else 1):
        words = [SHEPHERD, "simulate", "--port", str(base + number), *common]
        words += [] if apart else ["--fleet", str(options.workers)]
        processes.append(stack.enter_context(bare_process(words)))
    for number in range(options.workers):
        urls.append(f"http://127.0.0.1:{base + number}")
        wait_until_ok(urls[-1] + "/health", processes[number if apart else 0])
    yield urls, processes


@dataclass(slots=True)
class Started:
    """A gateway that runs, how it is asked, the worker to kill, and afterwards its CPU in seconds."""

    url: str
    way: Way
    victim: subprocess.Popen[bytes]
    cpu: float = 0.0


@contextmanager
def gateway(name: str, options: argparse.Namespace, urls: Sequence[str]) -> Iterator[tuple[str, Way, int]]:
    """The gateway of that name in front of the workers; its URL, what it is asked in, and its process."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    kind, _, policy = name.partition(":")
    kind, _, whole = kind.partition("+")
    way: Way = "chat" if kind == "smg" else "whole" if whole else "stored"
    with tempfile.TemporaryDirectory() as directory:
        if kind == "shepherd":
            words = [SHEPHERD, "serve", "--port", str(port), "--data-dir", directory, "--worker-urls", *urls]
            words += ["--policy", policy or "cache_aware", "--worker-cache-tokens", str(options.cache_tokens)]
            ready = "/readiness"
        else:
            words = [options.smg, "launch", "--host", "127.0.0.1", "--port", str(port), "--worker-urls", *urls]
            words += ["--policy", policy or "cache_aware", "--prometheus-port", str(free_port())]
            ready = "/v1/models"
        with bare_process(words, log=options.logs / f"{kind}.log" if options.logs else None) as process:
            wait_until_ok(url + ready, process, 120)
            yield url, way, process.pid


@contextmanager
def started(name: str, options: argparse.Namespace) -> Iterator[Started]:
    """The gateway of that name in front of a fleet of its own; at the end it is said what took CPU."""
    with ExitStack() as stack:
        urls, processes = stack.enter_context(fleet(options, stack))
        url, way, pid = stack.enter_context(gateway(name, options, urls))
        workers = [process.pid for process in processes]
        before, own, began = cpu_seconds(pid), time.process_time(), time.perf_counter()
        others = sum(map(cpu_seconds, workers))
        found = Started(url, way, processes[-1])
        yield found
        found.cpu = cpu_seconds(pid) - before
        # A worker that was killed takes what it took with it.
        others = sum(cpu_seconds(each.pid) for each in processes if each.poll() is None) - others
        own, wall = time.process_time() - own, time.perf_counter() - began
        said = f"{name}: in {wall:.0f} s the fleet took {others:.0f} s of CPU, this client {own:.0f} s"
        print(f"  {said}", file=sys.stderr, flush=True)
