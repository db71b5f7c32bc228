"""GET /metrics: how much the engine has to do, as vLLM, SGLang or TensorRT-LLM tell Prometheus."""

from __future__ import annotations

from app.simulator.http import Exchange
from app.simulator.worker import SimulatedWorker
from app.turn.errors import NotFound

PATHS = {"vllm": "/metrics", "sglang": "/metrics", "trtllm": "/prometheus/metrics"}

# Requests that run, requests that wait, and the share of the memory that is in use.
_NAMES = {
    "vllm": ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"),
    "sglang": ("sglang:num_running_reqs", "sglang:num_queue_reqs", "sglang:token_usage"),
    "trtllm": ("trtllm_num_requests_running", "trtllm_num_requests_waiting", "trtllm_kv_cache_utilization"),
}
_TEXT = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


async def expose(worker: SimulatedWorker, exchange: Exchange, _body: bytes) -> None:
    """Answer with the metrics. Raises `NotFound` where this engine has none."""
    kind = worker.settings.metrics
    if PATHS.get(kind) != exchange.path:
        raise NotFound("Not Found")
    occupied = worker.engine.occupied()
    values = (occupied.running, occupied.waiting, occupied.memory)
    lines = [f"# HELP {kind} What the engine has to do."]
    for name, value in zip(_NAMES[kind], values, strict=True):
        lines += [f"# TYPE {name} gauge", f'{name}{{model_name="{worker.settings.models[0]}"}} {float(value)}']
    body = "\n".join([*lines, ""]).encode()
    await exchange.begin(200, [_TEXT, (b"content-length", b"%d" % len(body))])
    await exchange.write(body, last=True)
