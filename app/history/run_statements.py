"""The statements of runs, made once. Times are the database's own: `app/db/clock`."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    Boolean,
    ColumnElement,
    and_,
    bindparam,
    delete,
    func,
    insert,
    not_,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql import Select

from app.db.clock import db_now
from app.db.prepared import Prepared
from app.history.tables import runs

_TENANT: Final[BindParameter[str]] = bindparam("run_tenant")
_ID: Final[BindParameter[str]] = bindparam("run_id")
_THIS: Final = and_(runs.c.tenant == _TENANT, runs.c.id == _ID)
_LASTS: Final = db_now() + bindparam("lasts")

_GIVEN: Final = [column.name for column in runs.columns if column is not runs.c.expires]
ADD_RUN: Final = Prepared(insert(runs).values(expires=_LASTS), _GIVEN)
# Nobody's: its time ran out before it began.
ADD_WAITING_RUN: Final = Prepared(insert(runs).values(expires=0.0), _GIVEN)

# Held so that nobody takes it over, or alone.
FENCE: Final = select(runs.c.fence).where(_THIS).with_for_update(read=True)
FENCE_ALONE: Final = Prepared(select(runs.c.fence).where(_THIS).with_for_update())
# (tenant, id, fence) of the runs of a group, held so that nobody takes them over before the commit. Where other
# processes listen, they are told of the runs by the same statement.
FENCES: Final = (
    select(runs.c.tenant, runs.c.id, runs.c.fence)
    .where(tuple_(runs.c.tenant, runs.c.id).in_(bindparam("keys", expanding=True)))
    .with_for_update(read=True)
)
# The same on SQLite, where nobody else writes meanwhile: in one go, of (tenant, id) pairs in JSON.
_KEYS: Final = func.json_each(bindparam("keys")).table_valued("value")
FENCES_TOLD: Final = Prepared(
    select(runs.c.tenant, runs.c.id, runs.c.fence)
    .select_from(_KEYS)
    .join(
        runs,
        and_(
            runs.c.tenant == func.json_extract(_KEYS.c.value, "$[0]"),
            runs.c.id == func.json_extract(_KEYS.c.value, "$[1]"),
        ),
    )
)
END_RUN: Final = delete(runs).where(_THIS)
END_HELD: Final = delete(runs).where(_THIS, runs.c.fence == bindparam("held"))

RELEASE: Final = update(runs).where(_THIS, runs.c.fence == bindparam("held")).values(owner=None, expires=0.0)
CANCEL: Final = update(runs).where(_THIS).values(cancelled=True)


def _claimable() -> Select[Any]:
    # What needs no model: a foreground run, whose client is gone, and one that was cancelled.
    brief: ColumnElement[bool] = or_(not_(runs.c.background), runs.c.cancelled)
    # What is somebody's own is being made: it came late to saying so, and would be two makers.
    others = runs.c.owner.is_distinct_from(bindparam("me"))
    return (
        select(runs)
        .where(runs.c.expires < db_now(), others, brief == bindparam("brief", type_=Boolean))
        .order_by(runs.c.expires, runs.c.created_at)
        .limit(bindparam("limit"))
    )


CLAIMABLE: Final = _claimable()
CLAIMABLE_HELD: Final = _claimable().with_for_update(skip_locked=True)
CLAIM: Final = (
    update(runs)
    .where(tuple_(runs.c.tenant, runs.c.id).in_(bindparam("keys", expanding=True)))
    .values(owner=bindparam("me"), fence=runs.c.fence + 1, expires=_LASTS)
)
RENEW: Final = (
    update(runs)
    .where(runs.c.owner == bindparam("me"))
    .values(expires=_LASTS)
    .returning(runs.c.tenant, runs.c.id, runs.c.cancelled, runs.c.fence)
)
LOOK: Final = select(runs.c.background, runs.c.cancelled, (runs.c.expires < db_now()).label("waiting")).where(
    _THIS, runs.c.request.is_not(None)
)
CONVERSATION: Final = select(runs.c.id).where(
    runs.c.tenant == bindparam("tenant"), runs.c.conversation_id == bindparam("conversation")
)
