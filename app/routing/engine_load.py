"""What an engine says of its load, read from the metrics it exposes for Prometheus. Pure.

vLLM, SGLang, TensorRT-LLM (`trtllm-serve`, alone and behind Dynamo) and Triton call the same three things differently.
Where there is a series for each data-parallel rank, requests add up, and of the memory in use it is the mean that the
next turn meets. Ranks that share a request each count it, though, and SGLang counts by priority beside the whole: of
series that differ in these labels only, the largest is meant.

Source: the text format of Prometheus, 0.0.4; the names are those of the engines' own documentation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias

from msgspec import Struct

Measure: TypeAlias = Literal["running", "waiting", "memory"]

_NAMES: dict[str, Measure] = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:kv_cache_usage_perc": "memory",
    "vllm:gpu_cache_usage_perc": "memory",
    "sglang:num_running_reqs": "running",
    "sglang:num_queue_reqs": "waiting",
    "sglang:token_usage": "memory",
    "trtllm_num_requests_running": "running",
    "trtllm_num_requests_waiting": "waiting",
    "trtllm_kv_cache_utilization": "memory",
    "trtllm:num_requests_running": "running",
    "trtllm:num_requests_waiting": "waiting",
    "trtllm:kv_cache_utilization": "memory",
    'nv_trt_llm_request_metrics request_type="scheduled"': "running",
    'nv_trt_llm_request_metrics request_type="waiting"': "waiting",
    'nv_trt_llm_kv_cache_block_metrics kv_cache_block_type="fraction"': "memory",
}
# Triton has one name for several things, which a label tells apart.
_LABELLED = {"nv_trt_llm_request_metrics": "request_type", "nv_trt_llm_kv_cache_block_metrics": "kv_cache_block_type"}
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_SHARED = frozenset(("tp_rank", "pp_rank", "moe_ep_rank", "priority"))
_BEGINNINGS = ("vllm:", "sglang:", "trtllm", "nv_trt_llm_")


class EngineLoad(Struct, frozen=True, gc=False):
    """Requests that are read or written, requests that wait, and the share of the cache's memory that requests hold.

    What is kept in the cache for nobody does not count as held.
    """

    running: int
    waiting: int
    memory: float = 0.0


def parse(exposition: str) -> EngineLoad | None:
    """The load in an engine's metrics; None where they do not tell how many requests it has."""
    found: dict[Measure, dict[str, float]] = {"running": {}, "waiting": {}, "memory": {}}
    for name, labels, value in _samples(exposition):
        measure = _NAMES.get(_key(name, labels))
        if measure is not None:
            series = ",".join(sorted(f"{label}={told}" for label, told in labels.items() if label not in _SHARED))
            found[measure][series] = max(found[measure].get(series, 0.0), value)
    if not found["running"] and not found["waiting"]:
        return None
    memory = found["memory"].values()
    used = min(sum(memory) / len(memory), 1.0) if memory else 0.0
    return EngineLoad(int(sum(found["running"].values())), int(sum(found["waiting"].values())), used)


def _samples(exposition: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    for line in exposition.splitlines():
        if not line.startswith(_BEGINNINGS):
            continue
        # A label's value may hold anything, a brace too, so the last one ends the labels.
        head, brace, tail = line.rpartition("}")
        name, _, labels = head.partition("{")
        if not brace:
            name, _, tail = line.partition(" ")
        values = tail.split()
        try:
            value = float(values[0])
        except (IndexError, ValueError):
            continue
        if math.isfinite(value) and (name in _LABELLED or name in _NAMES):
            yield name, dict(_LABEL.findall(labels)), max(value, 0.0)


def _key(name: str, labels: Mapping[str, str]) -> str:
    wanted = _LABELLED.get(name)
    return name if wanted is None else f'{name} {wanted}="{labels.get(wanted, "")}"'
