"""Calls in the output: how each kind begins, what is said of it meanwhile, and how it ends.

Functions and custom tools are shown while the model writes them, and so are calls of MCP servers; calls whose items are
made from their arguments are shown at once, when they are complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from app.dialects.openai_responses.client_calls import SHOWN, CustomInput, custom_input, fields_of
from app.dialects.openai_responses.events import Event, EventWriter, Streamed, Wording, encode, members
from app.dialects.openai_responses.output_items import Ending, Open, Output
from app.dialects.openai_responses.parts import part_to_wire
from app.turn.events import ToolsListed
from app.turn.items import Text, ToolCall, ToolError, ToolResult, ToolSpec

LISTING_CUT = "The response ended before the server answered."
OUTCOME_UNKNOWN = ToolError(
    "mcp_protocol_error", "The response ended before the tool returned. Whether it took effect is unknown.", -32000
)

_ARGUMENTS = Wording("response.function_call_arguments.delta", "response.function_call_arguments.done", "arguments")
_MCP_ARGUMENTS = Wording("response.mcp_call_arguments.delta", "response.mcp_call_arguments.done", "arguments")
_INPUT = Wording("response.custom_tool_call_input.delta", "response.custom_tool_call_input.done", "input")


class OpenCall(Open):
    """A call the client will execute: of a function, or of a custom tool, which is shown as the text it is given."""

    def __init__(self, output: Output, item_id: str, call: ToolCall) -> None:
        self._is_custom = call.kind == "custom"
        super().__init__(output, item_id, "custom_tool_call" if self._is_custom else "function_call")
        self.said = False
        self._call: dict[str, object] = {"call_id": call.call_id, "name": call.tool or call.name}
        if call.namespace is not None:
            self._call["namespace"] = call.namespace
        self._words = _INPUT if self._is_custom else _ARGUMENTS
        self._input = CustomInput()
        self._text: Streamed | None = None

    def begin(self) -> list[Event]:
        """Announce it."""
        event = self._begin(status="in_progress", **self._call, **{self._words.field: ""})
        self._text = Streamed(self._output.writer, self._words, self._place())
        return [event]

    def add(self, text: str) -> list[Event]:
        """More of its arguments."""
        if self.said or self._text is None:
            return []
        text = self._input.feed(text) if self._is_custom else text
        return [self._text.add(text)] if text else []

    def end(self, arguments: str) -> list[Event]:
        """It is complete."""
        if self.said:
            return []
        return self._finish("completed", custom_input(arguments) if self._is_custom else arguments)

    def close(self, status: Ending) -> list[Event]:
        """It ends although it is not complete."""
        return self._finish(status, None)

    def _finish(self, status: Ending, text: str | None) -> list[Event]:
        assert self._text is not None
        self.said = True
        events = self._text.finish(text)
        return events + self._end(status=status, **self._call, **{self._words.field: self._text.text})


class WholeCall(Open):
    """A call the client will execute, or a search of ours, whose item is made from its arguments."""

    def __init__(self, output: Output, item_id: str, call: ToolCall) -> None:
        super().__init__(output, item_id, SHOWN[call.kind].type)
        self._fields: Mapping[str, Any] = {"call_id": call.call_id, **fields_of(call.kind, call.arguments)}

    def show(self) -> list[Event]:
        """All of it."""
        events = [self._begin(status="in_progress", **self._fields)]
        for index, command in enumerate(self._commands()):
            events += _command(self._output.writer, self.index, index, command)
        return events + self._end(status="completed", **self._fields)

    def _commands(self) -> Iterator[str]:
        if self._head["type"] == "shell_call":
            yield from self._fields["action"]["commands"]


def _command(writer: EventWriter, output_index: int, index: int, command: str) -> list[Event]:
    place = members(output_index=output_index, command_index=index)
    whole = b'%b,"command":%b' % (place, encode(command))
    return [
        writer.event("response.shell_call_command.added", b'%b,"command":""' % place),
        writer.event("response.shell_call_command.delta", b'%b,"delta":%b' % (place, encode(command))),
        writer.event("response.shell_call_command.done", whole),
    ]


class OpenMcpCall(Open):
    """A call the gateway executes: the model says it, the gateway asks the server, the server answers."""

    def __init__(self, output: Output, item_id: str, call: ToolCall) -> None:
        super().__init__(output, item_id, "mcp_call")
        self.asked = self.said = False
        self._call: dict[str, object] = {"server_label": call.server_label, "name": call.tool or call.name}
        self._asked_as = {"approval_request_id": call.approval_id, "model_call_id": call.call_id}
        if call.elicitation_id is not None:
            self._asked_as["elicitation_request_id"] = call.elicitation_id
        self._arguments: Streamed | None = None
        self._held = ""

    def begin(self) -> list[Event]:
        """Announce it."""
        event = self._begin(**self._fields("in_progress", ""))
        self._arguments = Streamed(self._output.writer, _MCP_ARGUMENTS, self._place())
        return [event, self._event("response.mcp_call.in_progress")]

    def add(self, text: str) -> list[Event]:
        """More of its arguments. The space around them is not part of them, and what follows may be the last of it."""
        if self.said or self._arguments is None:
            return []
        text = self._held + text
        text = text if self._arguments.text else text.lstrip()
        kept = text.rstrip()
        self._held = text[len(kept) :]
        return [self._arguments.add(kept)] if kept else []

    def end(self, arguments: str | None) -> list[Event]:
        """The model has said all of it; the server is still to be asked."""
        assert self._arguments is not None
        if self.said:
            return []
        self.said = True
        return self._arguments.finish(arguments)

    def answer(self, result: ToolResult) -> list[Event]:
        """The server answered, or was not there."""
        if result.error is not None:
            return self._finish("failed", error=_error(result.error, result.output))
        if isinstance(result.output, str):
            return self._finish("completed", output=result.output)
        texts = "\n".join(part.text for part in result.output if isinstance(part, Text))
        return self._finish("completed", output=texts, output_parts=[part_to_wire(part) for part in result.output])

    def suspend(self, why: ToolError) -> list[Event]:
        """It ends here, and goes on in another response. An incomplete item would have to be the response's last."""
        return self._finish("failed", error=_error(why, why.message))

    def close(self, status: Ending) -> list[Event]:
        """The response ends before there is an answer."""
        if self.asked:
            return self._finish("failed", error=_error(OUTCOME_UNKNOWN, OUTCOME_UNKNOWN.message))
        return self._finish(status)

    def _finish(self, status: Ending, **fields: object) -> list[Event]:
        events = self.end(None)
        assert self._arguments is not None
        ending = "completed" if status == "completed" else "failed"
        events.append(self._event(f"response.mcp_call.{ending}"))
        return events + self._end(**{**self._fields(status, self._arguments.text), **fields})

    def _fields(self, status: str, arguments: str) -> dict[str, object]:
        return {"status": status, **self._call, "arguments": arguments, "output": None, "error": None, **self._asked_as}


class OpenListing(Open):
    """A server being asked for its tools."""

    def __init__(self, output: Output, item_id: str, server_label: str) -> None:
        super().__init__(output, item_id, "mcp_list_tools")
        self._head["server_label"] = server_label

    def begin(self) -> list[Event]:
        """Announce it."""
        return [self._begin(tools=[]), self._event("response.mcp_list_tools.in_progress")]

    def end(self, listed: ToolsListed) -> list[Event]:
        """The server answered, or was not there."""
        if listed.error is not None:
            return self._fail(listed.error.message)
        done = self._event("response.mcp_list_tools.completed")
        return [done, *self._end(tools=[_listed(tool) for tool in listed.tools])]

    def close(self, _status: Ending) -> list[Event]:
        """The response ends before there is an answer."""
        return self._fail(LISTING_CUT)

    def _fail(self, message: str) -> list[Event]:
        return [self._event("response.mcp_list_tools.failed"), *self._end(tools=[], error=message)]


def _listed(tool: ToolSpec) -> dict[str, object]:
    given = {"description": tool.description, "annotations": tool.annotations}
    return {
        "name": tool.tool or tool.name,
        "input_schema": tool.parameters,
        **{name: value for name, value in given.items() if value is not None},
    }


def _error(error: ToolError, output: object) -> dict[str, object]:
    """The API's error object. The model's next turns are shown the text in it, so it has to be what they were shown."""
    text = output if isinstance(output, str) and output else error.message
    if error.kind == "mcp_tool_execution_error":
        return {"type": error.kind, "content": [{"type": "text", "text": text}]}
    return {"type": error.kind, "code": error.code, "message": text}
