"""Error bodies as engines write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.dialects.openai_chat.faults import EngineError, read_error

VLLM = "This model's maximum context length is 2048 tokens. However, you requested 9000 tokens."
LLAMA = {"code": 400, "message": "the request exceeds the available context size", "type": "exceed_context_size_error"}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"error": {"message": "No.", "type": "t", "param": None, "code": "c"}}, EngineError("No.", "c")),
        ({"object": "error", "message": "No.", "type": "BadRequestError", "code": 400}, EngineError("No.", None, 400)),
        ({"error": {"message": "No.", "code": "429"}}, EngineError("No.", None, 429)),
        ({"error": {"message": "No.", "code": 7}}, EngineError("No.")),
        ({"error": "No."}, EngineError("No.")),
        ({"detail": "No."}, EngineError("No.")),
        (
            {"detail": [{"loc": ["body", "model"], "msg": "Field required"}, {"msg": "No."}, 5]},
            EngineError("body.model: Field required; No."),
        ),
        ({"error": {}}, EngineError()),
        ({"error": {"message": 5}}, EngineError()),
        ({}, EngineError()),
        ("No.", EngineError("No.")),
        ({"error": {"message": VLLM, "code": 400}}, EngineError(VLLM, "context_length_exceeded", 400)),
        ({"error": LLAMA}, EngineError(LLAMA["message"], "context_length_exceeded", 400)),
        (
            {"error": {"message": "Input is too long: 9 tokens"}},
            EngineError("Input is too long: 9 tokens", "context_length_exceeded"),
        ),
    ],
)
def test_shapes(body: Any, error: EngineError) -> None:
    assert read_error(json.dumps(body).encode()) == error


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", None),
        (b"Internal Server Error", "Internal Server Error"),
        (b"  \n", None),
        (b"<html><body>502 Bad Gateway</body></html>", None),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b'{"error": ', '{"error":'),
        (b"[" * 100_000, "[" * 2000),
        (b'{"error":' * 500 + b'"No."' + b"}" * 500, None),
    ],
)
def test_bodies_that_are_no_errors_of_theirs(body: bytes, message: str | None) -> None:
    assert read_error(body) == EngineError(message)


def test_a_message_has_a_limit() -> None:
    message = read_error(json.dumps({"error": {"message": "x" * 10_000}}).encode()).message
    assert message is not None
    assert len(message) == 2000


@pytest.mark.parametrize("message", ["The context of this talk is missing.", "The tool 'window' is too long ago."])
def test_not_everything_about_context_is_about_its_length(message: str) -> None:
    assert read_error(json.dumps({"error": message}).encode()).code is None
