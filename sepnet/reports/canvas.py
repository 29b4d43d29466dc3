"""Empty figures, names as matplotlib draws them, and PNG files."""

import io
import pathlib
import warnings

from pipelines.errors import one_line


def drawn(name: str) -> str:
    """A name as matplotlib draws it letter by letter: a dollar begins no formula, and what has no letter is escaped."""
    return one_line(name).replace("$", r"\$")


def make_figure(width: float, height: float, dpi: int = 120):
    """An empty figure, sizes in inches; matplotlib's object interface needs no screen and keeps no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def save(figure, target: pathlib.Path | io.BytesIO) -> None:
    """Writes a picture, a PNG; letters that the font lacks are drawn as boxes, without a word."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(target, format="png")
