"""Legal streams of every kind of item, written by hand from the contract: what the checker must accept.

Nothing here uses the encoder. An encoder and a checker that agree on a mistake would agree on everything else too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

Json = dict[str, Any]

RESPONSE: Json = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "completed_at": None,
    "status": "in_progress",
    "incomplete_details": None,
    "model": "m",
    "previous_response_id": None,
    "instructions": None,
    "output": [],
    "error": None,
    "tools": [],
    "tool_choice": "auto",
    "truncation": "disabled",
    "parallel_tool_calls": True,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "temperature": 1.0,
    "reasoning": None,
    "usage": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "store": True,
    "background": False,
    "service_tier": "default",
    "metadata": {},
    "safety_identifier": None,
    "prompt_cache_key": None,
}
USAGE: Json = {
    "input_tokens": 3,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 5,
}
ENDS: dict[str, Json] = {
    "completed": {"completed_at": 2, "usage": USAGE},
    "incomplete": {"usage": USAGE, "incomplete_details": {"reason": "max_output_tokens"}},
    "failed": {"error": {"code": "server_error", "message": "it broke"}},
}


class Story:
    """A stream being told."""

    def __init__(self, *first: str) -> None:
        self.events: list[Json] = []
        self.items: dict[int, Json] = {}
        self.began = 0
        for kind in first or ("created", "in_progress"):
            self.lifecycle(kind, "queued" if kind == "queued" or "queued" in first[:1] else "in_progress")

    def lifecycle(self, kind: str, status: str, **fields: Any) -> None:
        self.say(kind, response={**RESPONSE, "status": status, **fields})

    def say(self, kind: str, **fields: Any) -> None:
        kind = kind if kind in {"error", "keepalive"} else f"response.{kind}"
        self.events.append(copy.deepcopy({"type": kind, **fields}))

    def add(self, **item: Any) -> Callable[..., None]:
        """Announce an item; what tells more about it."""
        index, self.began = self.began, self.began + 1
        self.say("output_item.added", output_index=index, item=item)

        def tell(kind: str, **fields: Any) -> None:
            self.say(kind, item_id=item["id"], output_index=index, **fields)

        return tell

    def done(self, index: int, **item: Any) -> None:
        self.say("output_item.done", output_index=index, item=item)
        self.items[index] = item

    def end(self, kind: str = "completed", **fields: Any) -> list[Json]:
        output = [self.items[index] for index in sorted(self.items)]
        self.lifecycle(kind, kind, **{**ENDS[kind], "output": output, **fields})
        return numbered(self.events)


def numbered(events: Sequence[Json]) -> list[Json]:
    """The events with the numbers they should have."""
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def text_part(text: str, *annotations: Json) -> Json:
    return {"type": "output_text", "text": text, "annotations": [*annotations], "logprobs": []}


def write(story: Story, item_id: str = "msg_1", status: str = "completed") -> None:
    """A message of a text with an annotation, and a refusal."""
    index = story.began
    tell = story.add(id=item_id, type="message", status="in_progress", role="assistant", content=[])
    note = {"type": "url_citation", "url": "http://x", "title": "x", "start_index": 0, "end_index": 1}
    tell("content_part.added", content_index=0, part=text_part(""))
    tell("output_text.delta", content_index=0, delta="Good ", logprobs=[])
    tell("output_text.annotation.added", content_index=0, annotation_index=0, annotation=note)
    tell("output_text.delta", content_index=0, delta="dog.", logprobs=[])
    tell("output_text.done", content_index=0, text="Good dog.", logprobs=[])
    tell("content_part.done", content_index=0, part=text_part("Good dog.", note))
    tell("content_part.added", content_index=1, part={"type": "refusal", "refusal": ""})
    tell("refusal.delta", content_index=1, delta="No")
    tell("refusal.delta", content_index=1, delta=" more.")
    tell("refusal.done", content_index=1, refusal="No more.")
    tell("content_part.done", content_index=1, part={"type": "refusal", "refusal": "No more."})
    content = [text_part("Good dog.", note), {"type": "refusal", "refusal": "No more."}]
    story.done(index, id=item_id, type="message", status=status, role="assistant", content=content)


def think(story: Story, name: str = "reasoning_text") -> None:
    """Reasoning with a summary and text."""
    index = story.began
    tell = story.add(id="rs_1", type="reasoning", status="in_progress", summary=[])
    short, long = {"type": "summary_text", "text": "Sheep."}, {"type": "reasoning_text", "text": "One, two."}
    tell("reasoning_summary_part.added", summary_index=0, part={"type": "summary_text", "text": ""})
    tell("reasoning_summary_text.delta", summary_index=0, delta="She")
    tell("reasoning_summary_text.delta", summary_index=0, delta="ep.")
    tell("reasoning_summary_text.done", summary_index=0, text="Sheep.")
    tell("reasoning_summary_part.done", summary_index=0, part=short)
    tell("content_part.added", content_index=0, part={"type": "reasoning_text", "text": ""})
    tell(f"{name}.delta", content_index=0, delta="One, ")
    tell(f"{name}.delta", content_index=0, delta="two.")
    tell(f"{name}.done", content_index=0, text="One, two.")
    tell("content_part.done", content_index=0, part=long)
    story.done(index, id="rs_1", type="reasoning", status="completed", summary=[short], content=[long])


def call(story: Story) -> None:
    """A call of the client's."""
    index = story.began
    whole = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "look"}
    tell = story.add(**whole, arguments="", status="in_progress")
    tell("function_call_arguments.delta", delta='{"at"')
    tell("function_call_arguments.delta", delta=":1}")
    tell("function_call_arguments.done", arguments='{"at":1}')
    story.done(index, **whole, arguments='{"at":1}', status="completed")


def custom(story: Story) -> None:
    """A call whose input is free text."""
    index = story.began
    whole = {"id": "ctc_1", "type": "custom_tool_call", "call_id": "call_2", "name": "patch"}
    tell = story.add(**whole, input="")
    tell("custom_tool_call_input.delta", delta="*** Be")
    tell("custom_tool_call_input.delta", delta="gin")
    tell("custom_tool_call_input.done", input="*** Begin")
    story.done(index, **whole, input="*** Begin")


def listing(story: Story, ends: str = "completed") -> None:
    """A server's tools."""
    index = story.began
    whole = {"id": f"mcpl_{index}", "type": "mcp_list_tools", "server_label": "demo"}
    tell = story.add(**whole, tools=[])
    tell("mcp_list_tools.in_progress")
    tell(f"mcp_list_tools.{ends}")
    if ends == "completed":
        story.done(index, **whole, tools=[{"name": "add", "input_schema": {}}])
    else:
        story.done(index, **whole, tools=[], error="nobody there")


def mcp_call(story: Story, error: Json | None = None) -> None:
    """A call of the server's."""
    index = story.began
    whole = {"id": f"mcp_{index}", "type": "mcp_call", "server_label": "demo", "name": "add"}
    tell = story.add(**whole, arguments="", status="in_progress", output=None, error=None)
    tell("mcp_call.in_progress")
    tell("mcp_call_arguments.delta", delta="{")
    tell("mcp_call_arguments.delta", delta="}")
    tell("mcp_call_arguments.done", arguments="{}")
    ends, output = ("completed", "3") if error is None else ("failed", None)
    tell(f"mcp_call.{ends}")
    story.done(index, **whole, arguments="{}", status=ends, output=output, error=error)


def approval(story: Story) -> None:
    """A call that waits for a yes."""
    whole = {"id": "mcpr_1", "type": "mcp_approval_request", "server_label": "demo", "name": "add", "arguments": "{}"}
    index = story.began
    story.add(**whole)
    story.done(index, **whole)


def search(kind: str, **found: Any) -> Callable[[Story], None]:
    """A search that runs at the server."""

    def tell_it(story: Story) -> None:
        index = story.began
        tell = story.add(id="s_1", type=kind, status="in_progress")
        for step in ("in_progress", "searching", "completed"):
            tell(f"{kind}.{step}")
        story.done(index, id="s_1", type=kind, status="completed", **found)

    return tell_it


def interpret(story: Story) -> None:
    """Code that runs at the server."""
    index = story.began
    tell = story.add(id="ci_1", type="code_interpreter_call", status="in_progress", code="", container_id="c")
    tell("code_interpreter_call.in_progress")
    tell("code_interpreter_call_code.delta", delta="print(")
    tell("code_interpreter_call_code.delta", delta="1)")
    tell("code_interpreter_call_code.done", code="print(1)")
    tell("code_interpreter_call.interpreting")
    tell("code_interpreter_call.completed")
    done = {"id": "ci_1", "type": "code_interpreter_call", "status": "completed", "container_id": "c"}
    story.done(index, **done, code="print(1)", outputs=None)


def draw(story: Story) -> None:
    """An image."""
    index = story.began
    tell = story.add(id="ig_1", type="image_generation_call", status="in_progress")
    tell("image_generation_call.in_progress")
    tell("image_generation_call.generating")
    tell("image_generation_call.partial_image", partial_image_b64="AA==", partial_image_index=0)
    tell("image_generation_call.completed")
    story.done(index, id="ig_1", type="image_generation_call", status="completed", result="AAAA")


def shell(story: Story) -> None:
    """Two commands."""
    index = story.began
    whole = {"id": "sh_1", "type": "shell_call", "call_id": "call_3"}
    story.add(**whole, status="in_progress", action={"commands": []})
    for number, (one, two) in enumerate((("l", "s"), ("pw", "d"))):
        at = {"output_index": index, "command_index": number}
        story.say("shell_call_command.added", **at, command="")
        story.say("shell_call_command.delta", **at, delta=one)
        story.say("shell_call_command.delta", **at, delta=two)
        story.say("shell_call_command.done", **at, command=one + two)
    story.done(index, **whole, status="completed", action={"commands": ["ls", "pwd"]})


def shell_output(story: Story) -> None:
    """What a command printed."""
    index = story.began
    tell = story.add(id="sho_1", type="shell_call_output", call_id="call_3", status="in_progress", output=[])
    output = [{"stdout": "a\nb\n", "stderr": "oh", "outcome": {"type": "exit", "exit_code": 0}}]
    tell("shell_call_output_content.delta", command_index=0, delta={"stdout": "a\n"})
    tell("shell_call_output_content.delta", command_index=0, delta={"stdout": "b\n", "stderr": "oh"})
    tell("shell_call_output_content.done", command_index=0, output=output)
    whole = {"id": "sho_1", "type": "shell_call_output", "call_id": "call_3"}
    story.done(index, **whole, status="completed", output=output)


def compaction(story: Story) -> None:
    """A summary nobody else can read."""
    index = story.began
    tell = story.add(id="cmp_1", type="compaction")
    tell("compaction.compacting")
    story.done(index, id="cmp_1", type="compaction", encrypted_content="x")


def plain(kind: str, **fields: Any) -> Callable[[Story], None]:
    """An item that is only announced and concluded."""

    def tell_it(story: Story) -> None:
        index = story.began
        story.add(id="i_1", type=kind, status="in_progress", **fields)
        story.done(index, id="i_1", type=kind, status="completed", **fields)

    return tell_it


def told(*parts: Callable[[Story], None]) -> list[Json]:
    """A complete response with these items, one after the other."""
    story = Story()
    for part in parts:
        part(story)
    return story.end()


def side_by_side() -> list[Json]:
    """Two calls whose events interleave, as calls that run in parallel do."""
    story = Story()
    wholes = [{"id": f"mcp_{n}", "type": "mcp_call", "server_label": "demo", "name": "add"} for n in range(2)]
    tells = []
    for whole in wholes:
        tells.append(story.add(**whole, arguments="", status="in_progress"))
        tells[-1]("mcp_call.in_progress")
    for piece in ("{", "}"):
        for tell in tells:
            tell("mcp_call_arguments.delta", delta=piece)
    for tell in tells:
        tell("mcp_call_arguments.done", arguments="{}")
    for tell in reversed(tells):
        tell("mcp_call.completed")
    for index, whole in enumerate(wholes):
        story.done(index, **whole, arguments="{}", status="completed", output="3", error=None)
    return story.end()


LEGAL: dict[str, list[Json]] = {
    "nothing": told(),
    "message": told(write),
    "reasoning": told(think),
    "function call": told(call),
    "custom call": told(custom),
    "listing": told(listing),
    "failed listing": told(lambda story: listing(story, "failed")),
    "mcp call": told(mcp_call),
    "broken protocol": told(lambda story: mcp_call(story, {"type": "mcp_protocol_error", "code": 1, "message": "x"})),
    "failed tool": told(lambda story: mcp_call(story, {"type": "mcp_tool_execution_error", "content": []})),
    "http error": told(lambda story: mcp_call(story, {"type": "http_error", "code": 502, "message": "x"})),
    "approval": told(approval),
    "file search": told(search("file_search_call", queries=["sheep"], results=None)),
    "web search": told(search("web_search_call", action={"type": "search", "query": "sheep"})),
    "code": told(interpret),
    "image": told(draw),
    "shell": told(shell, shell_output),
    "compaction": told(compaction),
    "apply patch": told(plain("apply_patch_call", call_id="c", operation={"type": "delete_file", "path": "x"})),
    "computer": told(plain("computer_call", call_id="c", action={"type": "wait"})),
    "tool search": told(plain("tool_search_call", execution="server", arguments={})),
    "found tools": told(plain("tool_search_output", execution="server", tools=[])),
    "program": told(plain("program", call_id="c", code="1", fingerprint="f")),
    "local shell": told(plain("local_shell_call", call_id="c", action={"type": "exec", "command": ["ls"]})),
    "an item of somebody's own": told(plain("acme:weather", forecast="rain")),
    "many": told(listing, think, mcp_call, write, call),
    "side by side": side_by_side(),
}
