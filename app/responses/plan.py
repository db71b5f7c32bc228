"""What a run begins with, and what to remember of it so that it can begin again.

Everything that follows from the request follows from it again: ids are minted from a seed, so that a run that is made
anew from its log says the same things under the same names.
"""

from __future__ import annotations

import secrets

import msgspec
from msgspec import Struct, structs

from app.dialects.openai_responses.keeping import keep, kept
from app.dialects.openai_responses.wire import CreateResponse
from app.responses.continuation import Continuation
from app.responses.ports import NO_HINTS, McpServer, RouteHints, RouteKey, StoredItem
from app.turn.events import AnsweredCall, ApprovedCall, Start

SEED_BYTES = 16


class Plan(Struct, frozen=True):
    """Everything a run needs, decided before it begins. `context` comes before `own`, the request's own input."""

    principal: str
    request: CreateResponse
    context: tuple[StoredItem, ...]
    own: tuple[StoredItem, ...]
    servers: tuple[McpServer, ...]
    start: Start
    route: RouteKey
    # The version of the request's conversation that `context` is.
    version: int | None = None
    # When the conversation is forgotten, and the response with it, in seconds since the epoch.
    until: int | None = None

    def after(self, response_id: str | None) -> Continuation:
        """What the response of that id goes on from."""
        before, conversation = self.request.previous_response_id, self.request.conversation_id
        return Continuation(response=response_id, previous=before, conversation=conversation)


def hinted(plan: Plan, hints: RouteHints) -> Plan:
    """The plan with what its client said about where its turns should run."""
    if hints is NO_HINTS:
        return plan
    affinity = hints.affinity or plan.route.affinity
    return structs.replace(plan, route=structs.replace(plan.route, affinity=affinity, target=hints.target))


class Recipe(Struct, frozen=True):
    """What has to be kept of a run that may have to begin again. The approvals and answers it was given are used up, so
    the calls they allow are kept."""

    seed: bytes
    profile: str
    request: msgspec.Raw
    principal: str = ""
    approved: tuple[ApprovedCall, ...] = ()
    answered: tuple[AnsweredCall, ...] = ()

    def write(self) -> bytes:
        """As bytes."""
        return msgspec.json.encode(self)

    def read_request(self) -> CreateResponse:
        """The request."""
        return kept(self.request)


_recipe = msgspec.json.Decoder(Recipe)


def new_seed() -> bytes:
    """The seed of a run that has not been before."""
    return secrets.token_bytes(SEED_BYTES)


def remember(seed: bytes, profile: str, plan: Plan) -> Recipe:
    """The recipe of a run. Only a run that somebody else may have to make needs the request's secrets."""
    kept_request = msgspec.Raw(keep(plan.request, secrets=plan.request.background is True))
    return Recipe(seed, profile, kept_request, plan.principal, plan.start.approved, plan.start.answered)


def recall(data: bytes) -> Recipe:
    """The recipe in `data`."""
    return _recipe.decode(data)
