"""SGLang's messages: vLLM's as they were when SGLang took them over, arrays with fewer fields, and pages for blocks."""

from __future__ import annotations

from app.routing.kv_events import vllm
from app.routing.kv_events.words import Batch


def decode(payload: bytes) -> Batch:
    """The batch in a message. Raises `Undecodable`."""
    return vllm.decode(payload)
