"""The real SDK against the endpoints beside responses."""

from __future__ import annotations

import openai
import pytest


def say(text: str) -> dict[str, str]:
    return {"type": "message", "role": "user", "content": text}


def test_a_conversation_from_beginning_to_end(client: openai.OpenAI) -> None:
    talk = client.conversations.create(items=[say("My name is Dolly.")], metadata={"topic": "sheep"})
    assert talk.id.startswith("conv_")
    assert (talk.object, talk.metadata) == ("conversation", {"topic": "sheep"})

    first = client.responses.create(model="simulated", conversation=talk.id, input="Say hello.")
    assert first.conversation is not None
    assert first.conversation.id == talk.id
    second = client.responses.create(model="simulated", conversation={"id": talk.id}, input="And again.")
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens

    items = client.conversations.items.list(talk.id, order="asc", limit=2)
    every = list(items)
    assert [item.type for item in every] == ["message"] * 5
    assert [item.role for item in every] == ["user", "user", "assistant", "user", "assistant"]
    assert every[2].id == first.output[0].id
    assert [item.id for item in client.conversations.items.list(talk.id)] == [item.id for item in reversed(every)]
    given = client.responses.input_items.list(second.id, order="asc")
    assert [item.id for item in given] == [item.id for item in every[:4]]

    added = client.conversations.items.create(
        talk.id, items=[say("One"), say("Two")], include=["message.output_text.logprobs"]
    )
    assert [item.content[0].text for item in added.data] == ["One", "Two"]
    found = client.conversations.items.retrieve(added.data[0].id, conversation_id=talk.id)
    assert found == added.data[0]
    left = client.conversations.items.delete(added.data[0].id, conversation_id=talk.id)
    assert left.id == talk.id
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.retrieve(added.data[0].id, conversation_id=talk.id)
    assert len(list(client.conversations.items.list(talk.id))) == 6

    assert client.conversations.update(talk.id, metadata={"topic": "goats"}).metadata == {"topic": "goats"}
    assert client.conversations.retrieve(talk.id).metadata == {"topic": "goats"}
    gone = client.conversations.delete(talk.id)
    assert (gone.id, gone.deleted, gone.object) == (talk.id, True, "conversation.deleted")
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(talk.id)
    assert client.responses.retrieve(second.id).output_text == second.output_text
    assert len(list(client.responses.input_items.list(second.id))) == 4


def test_what_is_not_stored_is_not_in_the_conversation(client: openai.OpenAI) -> None:
    talk = client.conversations.create()
    client.responses.create(model="simulated", conversation=talk.id, input="Hello", store=False)
    assert list(client.conversations.items.list(talk.id)) == []
    client.responses.create(model="simulated", conversation=talk.id, input="Hello", background=True)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="simulated", conversation=talk.id, previous_response_id="resp_1", input="Hello")
    assert caught.value.code == "mutually_exclusive_parameters"


def test_counting_counts_what_the_engine_would(client: openai.OpenAI) -> None:
    asked = {"model": "simulated", "instructions": "Be brief.", "input": "How many legs does a sheep have?"}
    counted = client.responses.input_tokens.count(**asked)
    made = client.responses.create(**asked)
    assert made.usage is not None
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", made.usage.input_tokens)
    assert counted.estimated is False
    more = client.responses.input_tokens.count(model="simulated", previous_response_id=made.id, input="And a goat?")
    assert more.input_tokens > made.usage.input_tokens


def test_counting_counts_the_tools_of_servers(client: openai.OpenAI) -> None:
    tool = {"type": "mcp", "server_label": "time", "require_approval": "never"}
    asked = {"model": "simulated", "input": "Hello", "tools": [tool]}
    made = client.responses.create(**asked)
    assert made.usage is not None
    assert client.responses.input_tokens.count(**asked).input_tokens == made.usage.input_tokens
    assert client.responses.input_tokens.count(model="simulated", input="Hello").input_tokens < made.usage.input_tokens


def test_a_compacted_window_is_something_to_go_on_from(client: openai.OpenAI) -> None:
    first = client.responses.create(model="simulated", input="My name is Dolly.")
    window = client.responses.compact(model="simulated", previous_response_id=first.id, input="I live in Scotland.")
    assert window.object == "response.compaction"
    assert [item.type for item in window.output] == ["message", "message", "compaction"]
    assert window.usage.output_tokens > 0
    going_on = [item.to_dict(warnings=False) for item in window.output]
    made = client.responses.create(model="simulated", input=[*going_on, say("Who am I?")])
    assert made.status == "completed"
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="simulated", previous_response_id=window.id, input="x")
    assert caught.value.code == "previous_response_not_found"


def test_what_can_be_included_is_accepted_and_nothing_else(client: openai.OpenAI) -> None:
    made = client.responses.create(model="simulated", input="Hello")
    found = client.responses.retrieve(made.id, include=["reasoning.encrypted_content", "file_search_call.results"])
    assert found.id == made.id
    assert list(client.responses.input_items.list(made.id, include=["message.input_image.image_url"]))
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.retrieve(made.id, include=["nonsense"])  # pyright: ignore[reportArgumentType]
    assert caught.value.param == "include"


def test_what_was_not_included_can_be_read_later(client: openai.OpenAI) -> None:
    talk = client.conversations.create()
    made = client.responses.create(model="simulated-reasoning", input="Hello", conversation=talk.id)
    thought = next(item for item in made.output if item.type == "reasoning")
    assert thought.encrypted_content is None
    assert client.responses.retrieve(made.id).output == made.output
    read = client.responses.retrieve(made.id, include=["reasoning.encrypted_content"])
    (sealed,) = (item for item in read.output if item.type == "reasoning")
    assert sealed.encrypted_content
    of_talk = client.conversations.items.list(talk.id, include=["reasoning.encrypted_content"])
    assert [each.encrypted_content for each in of_talk if each.type == "reasoning"] == [sealed.encrypted_content]
    one = client.conversations.items.retrieve(
        sealed.id, conversation_id=talk.id, include=["reasoning.encrypted_content"]
    )
    assert one.type == "reasoning"
    assert one.encrypted_content == sealed.encrypted_content
    follow = client.responses.create(model="simulated", previous_response_id=made.id, input="And?")
    given = client.responses.input_items.list(follow.id, include=["reasoning.encrypted_content"])
    assert [each.encrypted_content for each in given if each.type == "reasoning"] == [sealed.encrypted_content]
    # What was sealed for the reader is the server's own.
    brought = {"type": "reasoning", "summary": [], "encrypted_content": sealed.encrypted_content}
    said = {"role": "user", "content": "Hello"}
    client.responses.create(model="simulated", store=False, input=[said, brought])  # pyright: ignore[reportArgumentType]


def test_a_request_that_is_repeated_makes_one_response(client: openai.OpenAI) -> None:
    key = {"Idempotency-Key": "a-key-of-mine"}
    first = client.responses.create(model="simulated", input="Hello", extra_headers=key)
    again = client.responses.create(model="simulated", input="Hello", extra_headers=key)
    assert again == first
    with pytest.raises(openai.ConflictError) as caught:
        client.responses.create(model="simulated", input="Goodbye", extra_headers=key)
    assert caught.value.code == "idempotency_key_reused"
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="simulated", input="x", extra_headers={"Idempotency-Key": "x" * 300})


def test_a_stream_that_is_repeated_is_the_same_stream(client: openai.OpenAI) -> None:
    key = {"Idempotency-Key": "a-key-for-a-stream"}
    streams = [
        [
            event.to_dict()
            for event in client.responses.create(model="simulated", input="Hi", stream=True, extra_headers=key)
        ]
        for _ in range(2)
    ]
    assert streams[0] == streams[1]


def test_a_request_that_never_began_may_be_made_again(client: openai.OpenAI) -> None:
    key = {"Idempotency-Key": "a-key-used-in-vain"}
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="nobody", input="Hello", extra_headers=key)
    assert client.responses.create(model="simulated", input="Hello", extra_headers=key).status == "completed"


def test_a_response_that_is_gone_is_not_made_again(client: openai.OpenAI) -> None:
    key = {"Idempotency-Key": "a-key-for-what-goes"}
    made = client.responses.create(model="simulated", input="Hello", extra_headers=key)
    client.responses.delete(made.id)
    with pytest.raises(openai.ConflictError) as caught:
        client.responses.create(model="simulated", input="Hello", extra_headers=key)
    assert caught.value.code == "idempotent_response_gone"
