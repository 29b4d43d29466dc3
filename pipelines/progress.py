"""The progress bar of every command: on the standard error, so that a pipe sees results alone."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(name: str, *, total: float, unit: str) -> Iterator[Callable[..., None]]:
    """Shows a bar with the share done, the amount in `unit`, a rate and the time left, where there is a terminal.

    Yields:
        `advance(amount, text="")`: moves the bar by `amount`, and shows `text` behind it if given.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[text]}", markup=False),
        TimeRemainingColumn(compact=True),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=total, unit=unit, rate="", text="")

        def advance(amount: float, text: str | None = None) -> None:
            progress.advance(task, amount)
            speed = progress.tasks[0].speed
            fields = {"rate": f"{speed:,.1f}/s" if speed else ""} | ({} if text is None else {"text": text})
            progress.update(task, **fields)

        yield advance
