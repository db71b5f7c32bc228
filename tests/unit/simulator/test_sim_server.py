"""The worker over HTTP: the same request has the same answer, whole or streamed, and usage tells the truth."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import httpx
import pytest

from app.dialects.openai_responses.check import check_sse
from app.simulator.script import Script, ScriptedReply
from tests.unit.simulator.sim_world import CHAT, hello, tool, worker

CALLS = {"tools": [tool("add")]}
TWO = 'add {"a": 1} and add {"a": "🐑🐑"}'


def chunks(answer: httpx.Response) -> list[dict[str, Any]]:
    """The chunks of a stream, which must end as streams do."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    *lines, last = [line[6:] for line in answer.text.split("\n\n") if line]
    assert last == "[DONE]"
    return [json.loads(line) for line in lines]


def folded(stream: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that the deltas of a stream make."""
    message: dict[str, Any] = {"content": ""}
    for chunk in stream:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            for name in ("content", "reasoning_content"):
                if name in delta:
                    message[name] = message.get(name, "") + delta[name]
            for call in delta.get("tool_calls", ()):
                known = message.setdefault("tool_calls", [])
                if call["index"] == len(known):
                    known.append({"id": call["id"], "type": call["type"], "function": call["function"]})
                else:
                    known[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    message["content"] = message["content"] or None
    return message


@pytest.mark.parametrize("limit", [None, 1, 7, 12])
async def test_a_stream_says_what_the_whole_answer_says(limit: int | None) -> None:
    async with worker(cache_tokens=0) as client:
        for model in ("simulated", "simulated-reasoning"):
            for text in ("Hello there", "Grüße an 🐑🐑🐑", TWO, "20 words please"):
                body = hello(text, model=model, max_completion_tokens=limit, **CALLS)
                whole = (await client.post(CHAT, json=body)).json()
                streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
                agree(whole, chunks(await client.post(CHAT, json=streamed)), limit)


def agree(whole: dict[str, Any], stream: list[dict[str, Any]], limit: int | None) -> None:
    """A stream and a whole answer say the same, and no more than `limit` tokens of it."""
    (choice,) = whole["choices"]
    message = {"content": choice["message"]["content"] or None}
    message |= {key: choice["message"][key] for key in ("reasoning_content", "tool_calls") if key in choice["message"]}
    assert folded(stream) == message
    assert [c["choices"][0]["finish_reason"] for c in stream if c["choices"]][-1] == choice["finish_reason"]
    assert stream[-1]["choices"] == []
    assert stream[-1]["usage"] == whole["usage"]
    usage = whole["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert limit is None or usage["completion_tokens"] <= limit
    assert {chunk["id"] for chunk in stream} == {stream[0]["id"]}


async def test_the_same_request_has_the_same_answer() -> None:
    async with worker() as client:
        one, other = [(await client.post(CHAT, json=hello(TWO, **CALLS))).json() for _ in range(2)]
        different = (await client.post(CHAT, json=hello(f"And {TWO}", **CALLS))).json()
    assert one["choices"] == other["choices"]
    assert one["id"] != other["id"]
    ids = [call["id"] for each in (one, different) for call in each["choices"][0]["message"]["tool_calls"]]
    assert len(set(ids)) == 4


async def test_usage_says_what_was_cached() -> None:
    async def cached(client: httpx.AsyncClient, *messages: str) -> tuple[int, int]:
        talk = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(messages)]
        answer = (await client.post(CHAT, json={"model": "simulated", "messages": talk})).json()
        usage = answer["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"]

    question, reply = "x" * 400, f"You said: {'x' * 400}"
    async with worker(block_size=4) as client:
        assert await cached(client, question) == (0, 103)
        assert await cached(client, question) == (100, 103)
        # The answer was cached with the question: its 103 tokens follow the prompt's.
        assert await cached(client, question, reply, "And?") == (204, 103 + 103 + 5)
        assert (await cached(client, "y" * 400))[0] == 0
    async with worker(block_size=4, cache_tokens=0) as client:
        assert [await cached(client, question) for _ in range(2)] == [(0, 103)] * 2


async def test_a_request_can_ask_for_an_exact_length() -> None:
    async with worker() as client:
        body = hello(max_tokens=123, ignore_eos=True)
        whole = (await client.post(CHAT, json=body)).json()
        stream = chunks(await client.post(CHAT, json={**body, "stream": True}))
    assert whole["usage"]["completion_tokens"] == 123
    assert whole["choices"][0]["finish_reason"] == "length"
    assert len(stream) == 1 + 123 + 1


async def test_scripted_replies_and_their_faults() -> None:
    script = Script(
        (ScriptedReply(when="boom", text="never"), ScriptedReply(text="Scripted."), ScriptedReply(text="2"))
    )
    async with worker(script) as client:
        first = (await client.post(CHAT, json=hello())).json()
        assert first["choices"][0]["message"]["content"] == "Scripted."
        assert (await client.post(CHAT, json=hello("boom"))).json()["choices"][0]["message"]["content"] == "never"


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        (CHAT, {"messages": []}, 400, "model"),
        (CHAT, hello(model="nobody"), 404, "model"),
        (CHAT, {"model": "simulated", "messages": []}, 400, "messages"),
        (CHAT, hello(messages=[{"role": "user", "content": 4}]), 400, "messages[0].content"),
        (CHAT, hello(n=2), 400, "n"),
        (CHAT, hello(max_tokens=0), 400, "max_tokens"),
        (CHAT, hello("x" * 500), 400, "messages"),
        ("/v1/completions", {"model": "simulated", "prompt": []}, 400, "prompt"),
        ("/v1/completions", {"model": "simulated", "prompt": [1, "a"]}, 400, "prompt"),
        ("/v1/completions", {"model": "simulated", "prompt": [-1]}, 400, "prompt"),
        ("/v1/completions", {"model": "simulated", "prompt": ["a", "b"], "stream": True}, 400, "prompt"),
        ("/v1/completions", {"model": "simulated", "prompt": "x" * 500}, 400, "prompt"),
        ("/v1/embeddings", {"model": "simulated", "input": "x", "dimensions": 0}, 400, "dimensions"),
        ("/v1/embeddings", {"model": "nobody", "input": "x"}, 404, "model"),
        ("/tokenize", {}, 400, "prompt"),
        ("/detokenize", {"tokens": [2**40]}, 400, "tokens"),
        ("/v1/nothing", {}, 404, None),
        ("/health", {}, 405, None),
    ],
)
async def test_what_is_wrong_is_said(path: str, body: dict[str, Any], status: int, param: str | None) -> None:
    async with worker(max_model_len=100) as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == param
    assert answer.json()["error"]["message"]


async def test_garbage_is_refused() -> None:
    async with worker() as client:
        answer = await client.post(CHAT, content=b"{")
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_a_long_answer_ends_at_the_context_length() -> None:
    async with worker(max_model_len=50) as client:
        answer = (await client.post(CHAT, json=hello("say 300 words"))).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == 50


async def test_a_key_is_wanted_where_one_is_set() -> None:
    async with worker(api_key="wool") as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.post(CHAT, json=hello())).status_code == 401
        assert (await client.get("/v1/models", headers={"authorization": "Bearer silk"})).status_code == 401
        assert (await client.get("/v1/models", headers={"authorization": "Bearer wool"})).status_code == 200


async def test_models() -> None:
    async with worker(models=("a", "b")) as client:
        listed = (await client.get("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == ["a", "b"]
    assert listed["data"][0]["created"] == 1_700_000_000


async def test_completions_of_text_and_of_tokens_are_the_same() -> None:
    async with worker() as client:
        tokens = (await client.post("/tokenize", json={"prompt": "Once upon"})).json()
        assert tokens["count"] == len(tokens["tokens"]) == 3
        body = {"model": "simulated", "max_tokens": 40, "echo": True}
        answers = [
            (await client.post("/v1/completions", json={**body, "prompt": prompt})).json()
            for prompt in ("Once upon", tokens["tokens"], ["Once upon"], [tokens["tokens"]])
        ]
        several = (await client.post("/v1/completions", json={**body, "prompt": ["one", "two"]})).json()
        stream = chunks(await client.post("/v1/completions", json={**body, "prompt": "Once upon", "stream": True}))
    assert {each["choices"][0]["text"] for each in answers} == {"Once uponYou said: Once upon"}
    assert {each["usage"]["prompt_tokens"] for each in answers} == {3}
    assert [choice["text"] for choice in several["choices"]] == ["oneYou said: one", "twoYou said: two"]
    assert "".join(chunk["choices"][0]["text"] for chunk in stream) == "Once uponYou said: Once upon"


async def test_messages_are_tokenized_as_they_are_counted() -> None:
    async with worker() as client:
        body = hello("Hello there", tools=[tool("add")])
        tokens = (await client.post("/tokenize", json=body)).json()
        usage = (await client.post(CHAT, json=body)).json()["usage"]
        back = (await client.post("/detokenize", json={"tokens": tokens["tokens"]})).json()
    assert tokens["count"] == usage["prompt_tokens"]
    assert back["prompt"].endswith("Hello there")


async def test_embeddings_have_length_one_and_know_who_shares_words() -> None:
    texts = ["the sheep on the hill", "the sheep by the hill", "quarterly revenue forecast"]
    async with worker() as client:
        answer = await client.post("/v1/embeddings", json={"model": "simulated", "input": texts})
        packed = await client.post(
            "/v1/embeddings", json={"model": "simulated", "input": texts, "encoding_format": "base64"}
        )
        small = await client.post("/v1/embeddings", json={"model": "simulated", "input": "", "dimensions": 3})
    one, two, three = (each["embedding"] for each in answer.json()["data"])

    def product(left: list[float], right: list[float]) -> float:
        return sum(a * b for a, b in zip(left, right, strict=True))

    assert product(one, one) == pytest.approx(1)
    assert product(one, two) > 0.5 > product(one, three)
    numbers = struct.unpack("<256f", base64.b64decode(packed.json()["data"][0]["embedding"]))
    assert list(numbers) == pytest.approx(one)
    assert product(vector := small.json()["data"][0]["embedding"], vector) == pytest.approx(1)
    assert len(vector) == 3


@pytest.mark.parametrize("model", ["simulated", "simulated-reasoning"])
@pytest.mark.parametrize("limit", [None, 2, 12])
async def test_responses_say_what_chat_says(model: str, limit: int | None) -> None:
    functions = [{"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": False}]
    async with worker(cache_tokens=0) as client:
        for text in ("Hello 🐑🐑 there", TWO):
            asked = {"model": model, "input": text, "tools": functions, "max_output_tokens": limit}
            whole = (await client.post("/v1/responses", json=asked)).json()
            stream = await client.post("/v1/responses", json={**asked, "stream": True})
            assert check_sse(stream.content) == []
            told = [json.loads(line[6:]) for line in stream.text.splitlines() if line.startswith("data: {")][-1]
            body = hello(text, model=model, max_tokens=limit, tools=[tool("add")])
            (choice,) = (await client.post(CHAT, json=body)).json()["choices"]
            for response in (whole, told["response"]):
                assert response["status"] == ("incomplete" if choice["finish_reason"] == "length" else "completed")
                items = response["output"]
                said = "".join(part["text"] for item in items if item["type"] == "message" for part in item["content"])
                assert said == (choice["message"]["content"] or "")
                thoughts = [part["text"] for item in items if item["type"] == "reasoning" for part in item["content"]]
                assert "".join(thoughts) == choice["message"].get("reasoning_content", "")
                calls = [(item["name"], item["arguments"]) for item in items if item["type"] == "function_call"]
                wanted = [call["function"] for call in choice["message"].get("tool_calls", ())]
                assert calls == [(call["name"], call["arguments"]) for call in wanted]


async def test_responses_without_what_a_worker_has_not() -> None:
    async with worker() as client:
        mcp = {"type": "mcp", "server_label": "x", "server_url": "http://127.0.0.1:9/mcp", "require_approval": "never"}
        for extra, param in (({"previous_response_id": "resp_1"}, "previous_response_id"), ({"tools": [mcp]}, "tools")):
            answer = await client.post("/v1/responses", json={"model": "simulated", "input": "Hi", **extra})
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == param
