"""Tables on the terminal."""

import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any


def make_console(width: int | None = None) -> Any:
    """The terminal as rich's `Console`; where the output is no terminal, it has this width, in characters.

    None takes rich's: 80, or what the environment variable COLUMNS says.
    """
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width)


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str = "",
    texts: Collection[int] = (0,),
    boxed: bool = True,
    folded: Collection[int] | None = None,
    section_rows: int = 0,
    bold_rows: Collection[int] = (),
    console: Any = None,
) -> None:
    """Prints a table; all texts are shown as they are, without markup.

    Args:
        headings: one for each column.
        rows: as many cells each.
        title: above the table; empty for none.
        texts: columns of text, which is at the left; the others hold figures, which are at the right.
        boxed: lines around the table and between columns; else a line under the headings, and an empty one at the end.
        folded: columns that are folded where the terminal is narrow, while others keep their line; None for all.
        section_rows: rows of a section, which is set apart from the next one; 0 for no sections.
        bold_rows: rows that stand out.
        console: of `make_console`.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    plain = {"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0), "pad_edge": False, "show_edge": False}
    table = Table(title=Text(title, style="table.title") if title else None, **({} if boxed else plain))
    for place, heading in enumerate(headings):
        is_text = place in texts
        table.add_column(
            Text(heading),
            justify="left" if is_text else "right",
            overflow="fold",
            no_wrap=folded is not None and place not in folded,
        )
    for place, row in enumerate(rows):
        table.add_row(
            *map(Text, row),
            end_section=bool(section_rows) and (place + 1) % section_rows == 0,
            style="bold" if place in bold_rows else None,
        )
    console = console or make_console()
    console.print(table)
    if not boxed:
        console.print()
