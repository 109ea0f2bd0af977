"""Tables for notebooks: what an object's `_repr_html_` gives."""

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["html_table"]

MOST = 100
"""Rows that are shown; the rest is counted."""


def html_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with a title; nothing in it is taken for markup."""
    held = [list(row) for row in rows]
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in held[:MOST])
    rest = f"<p>and {len(held) - MOST} more</p>" if len(held) > MOST else ""
    return f"<p>{escape(title)}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"
