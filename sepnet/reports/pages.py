"""HTML pages that need nothing beside them: their style, pictures, players and tables; media as data: URIs."""

import base64
import io
from collections.abc import Callable, Collection, Iterable, Sequence
from html import escape

import numpy as np

STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; --mark: #2a78d6; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 62rem;
  overflow-wrap: break-word; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; } h3 { margin-bottom: .3rem; }
.answer { border-left: 4px solid var(--mark); background: var(--soft); padding: .6rem 1rem .6rem 2rem; }
.scroll { overflow-x: auto; margin-bottom: 1.2rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; opacity: .8; padding-bottom: .3rem; }
th, td { padding: .25rem .45rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th[scope=row], td.text, th.text { text-align: left; }
td.text { white-space: normal; }
th[scope=col] { white-space: normal; vertical-align: bottom; }
td.wrap { min-width: 14rem; }
tr.marked { background: var(--soft); }
figure { margin: 1.5rem 0; } figcaption, .note { font-size: .9rem; opacity: .85; }
img { width: 100%; height: auto; background: #fff; border-radius: 4px; }
audio { width: 100%; height: 2.4rem; }
.players, .figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .4rem 1rem; }
.figures figure { margin: .5rem 0; }
.players > div { font-size: .9rem; }
pre { overflow-x: auto; background: var(--soft); padding: .6rem; font-size: .85rem; }
"""
MEDIA_TYPES = {"MP3": "audio/mpeg", "FLAC": "audio/flac"}


def page(title: str, sections: Iterable[str]) -> str:
    """The whole page: a title in plain text, and sections of HTML."""
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def figure(uri: str, alternative: str, caption: str) -> str:
    """A picture with its description for those who do not see it, and its caption."""
    picture = f'<img alt="{escape(alternative)}" src="{uri}">'
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def figures(pictures: Iterable[tuple[str, str, str]]) -> str:
    """Figures beside each other, where there is room: of each what `figure` takes."""
    return f'<div class="figures">{"".join(figure(*picture) for picture in pictures)}</div>'


def players(clips: Sequence[tuple[str, str]], label: str) -> str:
    """Audio players beside each other: name and data: URI of each, and what they belong to, for who hears the page."""
    boxes = (
        f'<div>{escape(name)}<br><audio controls preload="metadata" aria-label="{escape(name)}, {escape(label)}" '
        f'src="{uri}"></audio></div>'
        for name, uri in clips
    )
    return f'<div class="players">{"".join(boxes)}</div>'


def table(
    caption: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    texts: Collection[int] = (0, -1),
    marks: Sequence[str] = (),
) -> str:
    """A table whose first column names its rows.

    Args:
        caption: plain text.
        headings: of the columns.
        rows: as many cells each.
        texts: columns of text, which is at the left; the others hold figures, which are at the right.
        marks: a row stands out whose last cell begins with one of these.
    """
    texts = {range(len(headings))[place] for place in texts}
    kinds = (' class="text"' if place in texts else "" for place in range(len(headings)))
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for kind, name in zip(kinds, headings, strict=True))
    body = []
    for name, *cells in rows:
        marked = ' class="marked"' if cells[-1].startswith(tuple(marks)) else ""
        shown = "".join(_cell(cell, place in texts) for place, cell in enumerate(cells, start=1))
        body.append(f'<tr{marked}><th scope="row">{escape(name)}</th>{shown}</tr>')
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def audio_uri(samples: np.ndarray, sample_rate: int) -> str:
    """Audio `[num_samples, num_channels]` as a data: URI, MP3 where libsndfile and the rate allow it, else FLAC."""
    import soundfile

    # ±1 itself would wrap around in 16 bits.
    samples = np.clip(samples, -1, 1 - 2**-15)
    for container, media_type in MEDIA_TYPES.items():
        buffer = io.BytesIO()
        try:
            soundfile.write(buffer, samples, sample_rate, format=container)
        except (soundfile.LibsndfileError, ValueError):
            if container == "FLAC":
                raise
            continue
        return data_uri(buffer.getvalue(), media_type)


def picture_uri(draw: Callable[[io.BytesIO], None]) -> str:
    """The PNG that `draw` writes, as a data: URI."""
    buffer = io.BytesIO()
    draw(buffer)
    return data_uri(buffer.getvalue(), "image/png")


def data_uri(content: bytes, media_type: str) -> str:
    """Content as an address that holds it."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _cell(text: str, is_text: bool) -> str:
    if not is_text:
        return f"<td>{escape(text)}</td>"
    wide = "text wrap" if len(escape(text)) > 40 else "text"
    return f'<td class="{wide}">{escape(text)}</td>'
