"""Statements that are executed all the time: compiled once for each kind of database, and handed to its driver as text.

What SQLAlchemy does around a statement costs several times what SQLite does for it. Its work is the same each time, so
here it is done once. Nothing is converted on the way: only what every driver takes and gives as it is goes in and comes
out (text, numbers, bytes, NULL), and rows are plain tuples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, cast

from sqlalchemy import ClauseElement, Connection
from sqlalchemy.exc import DBAPIError

from app.db.faults import is_to_be_replaced


class _Compiled:
    """The text of a statement, the names of its parameters in their order, and the values of those it brings along."""

    def __init__(self, statement: ClauseElement, connection: Connection, columns: Sequence[str] | None) -> None:
        # As SQLAlchemy's own compilation for `execute`: the given columns are those of an INSERT.
        compiled: Any = statement.compile(connection, column_keys=columns)
        self.text = str(compiled)
        self.names: tuple[str, ...] = tuple(compiled.positiontup)
        self.fixed: dict[str, Any] = {name: compiled.params[name] for name in self.names}

    def parameters(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """The values in their order."""
        given = {**self.fixed, **values}
        return tuple([given[name] for name in self.names])


class Prepared:
    """A statement. `columns` are those of an INSERT whose values come with each execution."""

    def __init__(self, statement: ClauseElement, columns: Sequence[str] | None = None) -> None:
        self._statement = statement
        self._columns = columns
        self._compiled: dict[str, _Compiled] = {}

    def run(self, connection: Connection, values: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        """Execute it as a part of what `connection` does; the rows it gives. Raises what `Connection.execute` does."""
        compiled = self._for(connection)
        return execute(connection, compiled.text, compiled.parameters(values), many=False)

    def value(self, connection: Connection, values: Mapping[str, Any]) -> Any:
        """The same; the first column of the first row, or None when there is no row."""
        rows = self.run(connection, values)
        return rows[0][0] if rows else None

    def run_each(self, connection: Connection, each: Sequence[Mapping[str, Any]]) -> None:
        """Execute it with each of the values. Raises what `Connection.execute` does."""
        compiled = self._for(connection)
        if len(each) == 1:
            execute(connection, compiled.text, compiled.parameters(each[0]), many=False)
        elif each:
            execute(connection, compiled.text, [compiled.parameters(values) for values in each], many=True)

    def _for(self, connection: Connection) -> _Compiled:
        name = connection.dialect.name
        compiled = self._compiled.get(name)
        if compiled is None:
            compiled = self._compiled[name] = _Compiled(self._statement, connection, self._columns)
        return compiled


def execute(
    connection: Connection, text: str, parameters: Any = (), *, many: bool = False
) -> Sequence[tuple[Any, ...]]:
    """Have the driver execute `text`, once or with each of `many` parameters. Raises what `Connection.execute` does."""
    try:
        # Closed before anybody closes the connection.
        with closing(connection.connection.cursor()) as cursor:
            if many:
                cursor.executemany(text, parameters)
                return ()
            cursor.execute(text, parameters)
            return cursor.fetchall() if cursor.description else ()
    except connection.dialect.loaded_dbapi.Error as error:
        raise _as_sqlalchemy(connection, text, error) from error


def _as_sqlalchemy(connection: Connection, text: str, error: Exception) -> BaseException:
    dialect = connection.dialect
    over = dialect.is_disconnect(cast("Any", error), connection.connection, None) or is_to_be_replaced(error)
    if over:
        connection.invalidate(error)
    base = dialect.loaded_dbapi.Error
    return DBAPIError.instance(text, None, error, base, True, over, dialect)
