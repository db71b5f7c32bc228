"""What a WebSocket knows of the responses made on it, and what becomes of what a client says to one of them.

Whoever steers a response has more to say before it is over. What is said is taken at once, and is then the server's to
bring into a response: the one that is being made ends where nothing is lost by it (`machine.py`), and the server begins
the next by itself, with what was said as its input and all else as it was. A response that ends with calls for the
client to answer cannot be gone on from without the answers: then what was said waits for the client's own next request.
What cannot be brought in is given back. Nothing that was taken is ever dropped without a word.

    running ──ended──▶ over                 nothing was said, or it goes into a successor
            ──ended──▶ waiting ──joined──▶ over
            ──failed─▶ broken               what was said is given back

Decides only; `api.socket` performs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from msgspec import Raw, Struct, structs

from app.dialects.openai_responses import steering
from app.dialects.openai_responses.frames import Create
from app.dialects.openai_responses.steering import Steer, SteerFault
from app.responses.lanes import USUAL, Bounds
from app.turn.errors import InvalidRequest

# Of so many responses it is remembered that they are over.
MADE = 128

State: TypeAlias = Literal["running", "waiting", "over", "broken"]

_WHY: dict[State, tuple[SteerFault, str]] = {
    "waiting": ("response_already_completed", "The response is complete and waits for the results of its calls."),
    "over": ("response_already_completed", "The response is complete. Send the input with the next response.create."),
    "broken": ("response_not_active", "The response has failed. Send the input with the next response.create."),
}


class Queued(Struct, frozen=True):
    """Something that was said to a response and taken."""

    id: str
    steer: Steer
    messages: tuple[Raw, ...]


class Work(Struct, frozen=True):
    """A response to make. `carried` is what was said to the one before and goes into it; `automatic`: nobody asked for
    it in so many words."""

    asked: Create
    carried: tuple[Queued, ...] = ()
    automatic: bool = False


class Waiting(Struct, frozen=True):
    """What was said has to wait until the client brings what is `required`."""

    said: tuple[Queued, ...]
    required: tuple[dict[str, str], ...]


class GivenBack(Struct, frozen=True):
    """What was said cannot be brought into any response."""

    said: tuple[Queued, ...]
    fault: SteerFault
    error: InvalidRequest


Then: TypeAlias = Work | Waiting | GivenBack | None


class Refused(Exception):
    """What is said is not taken."""

    def __init__(self, fault: SteerFault, error: InvalidRequest) -> None:
        super().__init__(error.message)
        self.fault: SteerFault = fault
        self.error = error


class _Made:
    """A response of the connection."""

    def __init__(self, asked: Create) -> None:
        self.asked = asked
        self.state: State = "running"
        self.said: list[Queued] = []


class Steering:
    """The responses of one connection. What waits to be said has at most `max_bytes`."""

    def __init__(self, max_bytes: int, bounds: Bounds = USUAL) -> None:
        self._made: OrderedDict[str, _Made] = OrderedDict()
        self._max_bytes = max_bytes
        self._max_said = bounds.steers

    def began(self, response_id: str, work: Work) -> None:
        """The response is being made: what was carried into it is said."""
        self._made[response_id] = _Made(work.asked)
        for each in [each for each, made in self._made.items() if made.state in {"over", "broken"}]:
            if len(self._made) <= MADE:
                break
            del self._made[each]

    def lane(self, response_id: str) -> str | None:
        """The lane the response was asked for on."""
        made = self._made.get(response_id)
        return None if made is None else made.asked.lane

    def take(self, steer: Steer, name: Callable[[], str]) -> Queued:
        """Take what is said to a response, under an id that `name` mints. Raises `Refused`."""
        made = self._made.get(steer.previous_response_id)
        if made is None:
            message = "No response with that id is being made on this connection."
            raise Refused("response_not_found", InvalidRequest(message, param="previous_response_id"))
        try:
            messages = steering.said(steer)
        except InvalidRequest as error:
            raise Refused("invalid_input", error) from None
        if made.state != "running":
            fault, message = _WHY[made.state]
            raise Refused(fault, InvalidRequest(message, param="previous_response_id"))
        why = steering.why_not(made.asked.request, generate=made.asked.generate)
        if why is not None:
            raise Refused("steering_not_supported", InvalidRequest(why, param="previous_response_id"))
        waiting = [each for other in self._made.values() for each in other.said]
        size = sum(len(bytes(each.steer.input)) for each in waiting) + len(bytes(steer.input))
        if len(waiting) >= self._max_said or size > self._max_bytes:
            message = "Too much that was said before waits on this connection."
            raise Refused("too_many_pending_steers", InvalidRequest(message, param="input"))
        queued = Queued(name(), steer, messages)
        made.said.append(queued)
        return queued

    def ended(self, response_id: str, output: Callable[[], Sequence[Raw]]) -> Work | Waiting | None:
        """The response has come to an end that can be gone on from, with this output, if anyone asks; what is to happen
        now, before anything else on its lane. None: nothing."""
        made = self._made[response_id]
        made.state = "over"
        if not made.said:
            return None
        required = steering.required_input(output())
        if required:
            made.state = "waiting"
            return Waiting(tuple(made.said), required)
        asked = steering.successor(made.asked.request, response_id, _messages(made.said))
        return Work(structs.replace(made.asked, request=asked), self._release(made), automatic=True)

    def failed(self, response_id: str) -> GivenBack | None:
        """The response has come to no such end."""
        made = self._made.get(response_id)
        if made is None:
            return None
        made.state = "broken"
        fault, message = _WHY["broken"]
        said = self._release(made)
        return GivenBack(said, fault, InvalidRequest(message, param="previous_response_id")) if said else None

    def joined(self, asked: Create) -> Work:
        """What the client asks for, with what waits for exactly this: said to the response it goes on from, and asked
        for on that one's lane."""
        made = self._made.get(asked.request.previous_response_id or "")
        if made is None or made.state != "waiting" or made.asked.lane != asked.lane:
            return Work(asked)
        made.state = "over"
        said = self._release(made)
        return Work(structs.replace(asked, request=steering.joined(asked.request, _messages(said))), said)

    def _release(self, made: _Made) -> tuple[Queued, ...]:
        said = tuple(made.said)
        made.said.clear()
        return said


def not_made(work: Work, why: str) -> GivenBack | None:
    """The response that was to say it could not be begun."""
    if not work.carried:
        return None
    error = InvalidRequest(f"The response that was to say this could not be made: {why}", param="input")
    return GivenBack(work.carried, "successor_creation_failed", error)


def _messages(said: Sequence[Queued]) -> list[Raw]:
    return [message for each in said for message in each.messages]
