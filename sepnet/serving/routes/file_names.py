"""Names of files that clients save: whatever a song is called, they can stand in a header and in any folder."""

import re
import unicodedata
from urllib.parse import quote

from pipelines.audio.reading import SUFFIXES

# A file's name may have 255 bytes; of ours, the name of a song is one part.
LONGEST_NAME_BYTES = 180
# Characters that some system does not allow in names.
FORBIDDEN_CHARACTERS = set('"*/:<>?\\|')
# Control characters, halves of characters, line ends, and what turns the direction of text: it would hide a suffix.
HIDDEN_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
TURNING_CHARACTERS = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def safe_name(name: str, default: str) -> str:
    """A name that any folder can hold, as much like `name` as it can be; `default` where nothing of it can stay."""
    safe = "".join("_" if _is_unsafe(character) else character for character in name).strip(" .")
    # Not in the middle of a character.
    return safe.encode()[:LONGEST_NAME_BYTES].decode(errors="ignore").strip(" .") or default


def song_name(name: str) -> str:
    """Returns the name for the stems of a song, from the path of its file on any system."""
    last = re.split(r"[/\\]", name)[-1]
    stem, _, suffix = last.rpartition(".")
    return safe_name(stem.removesuffix(".stem") if f".{suffix.lower()}" in SUFFIXES else last, "song")


def disposition(name: str) -> str:
    """`Content-Disposition` of a file to save, in ASCII: a name beyond that stands there as RFC 8187 writes it, too."""
    # Some clients would decode a percent sign.
    plain = re.sub(r"[^A-Za-z0-9 _.,;()&+='!#$@~^\[\]{}-]", "_", name)
    extended = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'attachment; filename="{plain}"{extended}'


def _is_unsafe(character: str) -> bool:
    return (
        character in FORBIDDEN_CHARACTERS | TURNING_CHARACTERS or unicodedata.category(character) in HIDDEN_CATEGORIES
    )
