"""A user's answers to what tools have asked: found, checked, and used up by the request that brings them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from app.dialects.openai_responses.eliciting import ElicitationAnswer
from app.responses.eliciting import Elicitation, Elicitations
from app.responses.promised import unfit
from app.turn.errors import Conflict, GatewayError, InvalidRequest, NotFound
from app.turn.events import Answer, AnsweredCall, Reply
from app.turn.ids import whole_of
from app.turn.items import Question


class Answered(Struct, frozen=True):
    """A call all of whose questions are answered; `path` is where the request answers the first."""

    elicitation: Elicitation
    answers: tuple[Answer, ...]
    path: str

    @property
    def call(self) -> AnsweredCall:
        """What to go on with."""
        waiting = self.elicitation
        reply = Reply(waiting.id, waiting.state, self.answers)
        return AnsweredCall(reply, waiting.server_label, waiting.tool, waiting.arguments, waiting.approved)


async def read_answers(
    kept: Elicitations, tenant: str, principal: str, given: Sequence[ElicitationAnswer]
) -> tuple[Answered, ...]:
    """The calls that `given` answers, in the order in which it does. Nothing is used up yet.

    Raises `InvalidRequest` with the path of what is wrong: an id that is not there or not any more, a question that is
    answered twice or left out, content that does not fit.
    """
    calls: dict[str, list[ElicitationAnswer]] = {}
    for answer in given:
        calls.setdefault(whole_of(answer.question_id), []).append(answer)
    answered: list[Answered] = []
    for elicitation_id, answers in calls.items():
        try:
            waiting = await kept.find(tenant, elicitation_id, principal)
        except (NotFound, Conflict) as error:
            raise refused(error, answers[0].path) from error
        answered.append(Answered(waiting, _all_answered(waiting, answers), answers[0].path))
    return tuple(answered)


async def use_up(kept: Elicitations, tenant: str, principal: str, answered: Answered) -> AnsweredCall:
    """The call to go on with, which nobody gets a second time. Raises `InvalidRequest`."""
    try:
        await kept.consume(tenant, answered.elicitation.id, principal)
    except (NotFound, Conflict) as error:
        raise refused(error, answered.path) from error
    return answered.call


def refused(error: GatewayError, path: str) -> InvalidRequest:
    """The answer at `path` finds no question that waits."""
    code = error.code or "elicitation_not_found"
    return InvalidRequest(error.message, param=f"{path}.elicitation_request_id", code=code)


def _all_answered(waiting: Elicitation, given: Sequence[ElicitationAnswer]) -> tuple[Answer, ...]:
    known = {question.id: question for question in waiting.questions}
    answers: dict[str, Answer] = {}
    for answer in given:
        param = f"{answer.path}.elicitation_request_id"
        if answer.question_id not in known:
            message = f"Elicitation request with id '{answer.question_id}' not found."
            raise InvalidRequest(message, param=param, code="elicitation_not_found")
        if answer.question_id in answers:
            message = f"Elicitation request '{answer.question_id}' is answered twice."
            raise InvalidRequest(message, param=param, code="elicitation_already_answered")
        answers[answer.question_id] = _checked(known[answer.question_id], answer)
    missing = [question_id for question_id in known if question_id not in answers]
    if missing:
        message = f"The call asks several things; '{missing[0]}' is not answered. Answer all of them in one request."
        raise InvalidRequest(message, param="input", code="elicitation_incomplete")
    return tuple(answers[question_id] for question_id in known)


def _checked(question: Question, answer: ElicitationAnswer) -> Answer:
    """The answer, if its content is what the question wants."""
    path = f"{answer.path}.content"
    action = answer.action
    if action != "accept" or question.url:
        if msgspec.json.decode(answer.content):
            why = "an address that is agreed to has no content" if question.url else f"action '{action}' has no content"
            raise _unfit(path, why)
        return Answer(action)
    content = _object(answer.content, path)
    why = unfit(Raw(question.schema.encode()), content)
    if why is not None:
        raise _unfit(path, why)
    return Answer(action, bytes(answer.content).decode())


def _object(content: Raw, path: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        raise _unfit(path, "it is not an object") from None


def _unfit(path: str, why: str) -> InvalidRequest:
    message = f"The content does not fit what is asked: {why}."
    return InvalidRequest(message, param=path, code="elicitation_content_invalid")
