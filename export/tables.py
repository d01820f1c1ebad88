"""Tables of a report, as Markdown and as HTML, and reports that are one HTML file without outside links."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1200px;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:.7em 0 1.6em;font-variant-numeric:tabular-nums}"
    "td,th{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:right}"
    "td:first-child,th:first-child{text-align:left}"
    "img{max-width:100%;image-rendering:auto;border:1px solid #ddd}figure{margin:1em 0}figcaption{color:#555}"
)


@dataclass(frozen=True, slots=True)
class Table:
    """Words above a table, its header and its rows; every row as long as the header."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        wrong = [row for row in self.rows if len(row) != len(self.header)]
        if wrong:
            raise ValueError(f"expected {len(self.header)} cells in each row, found {list(wrong[0])}")

    def to_markdown(self) -> str:
        """Caption, blank line, pipe table."""
        lines = ["|" + "".join(f" {cell} |" if cell else " |" for cell in row) for row in (self.header, *self.rows)]
        lines.insert(1, "|---" * len(self.header) + "|")
        return f"{self.caption}\n\n" + "\n".join(lines)

    def to_html(self) -> str:
        """Caption as a paragraph, then the table."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.header)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows)
        return f"<p>{html.escape(self.caption)}</p><table><tr>{head}</tr>{body}</table>"


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG with words below."""

    caption: str
    png: bytes

    def to_html(self) -> str:
        """A figure with the picture inside."""
        data = base64.b64encode(self.png).decode()
        caption = html.escape(self.caption)
        image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
        return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def html_page(title: str, parts: Sequence[Table | Picture | str]) -> bytes:
    """One self-contained page; plain strings become headings."""
    body = "".join(f"<h2>{html.escape(part)}</h2>" if isinstance(part, str) else part.to_html() for part in parts)
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    page = f"<head>{head}</head><body><h1>{html.escape(title)}</h1>{body}</body>"
    return f'<!doctype html><html lang="en">{page}</html>\n'.encode()
