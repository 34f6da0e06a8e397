"""Finding the columns that a recipe names; what to say where they are not."""

from __future__ import annotations

from collections.abc import Sequence

from serve.errors import UserError, did_you_mean

_LISTED, _LISTED_CHARACTERS = 12, 40


def find_column(columns: Sequence[str], key: str, column: str, file: str) -> int:
    """Where `column` stands. Raises UserError if it is not there once; `key` is the recipe's, as text_column."""
    if columns.count(column) == 1:
        return columns.index(column)
    if column in columns:
        raise UserError(f"{file} has two columns called '{column}'", f"rename one, or choose another as {key}")
    close = did_you_mean(column, columns)
    hint = f'write {key} = "..." under [data]' + (f"; {close}" if close.startswith("did") else "")
    raise UserError(f"{file} has no column '{column}' ({key}); it has {listed(columns)}", hint)


def listed(columns: Sequence[str]) -> str:
    """Column names, the first few of many, for a message."""
    names = [name if len(name) <= _LISTED_CHARACTERS else name[: _LISTED_CHARACTERS - 3] + "..." for name in columns]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(f"'{name}'" for name in names[:_LISTED]) + more
