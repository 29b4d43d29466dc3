"""Reads captions in files of all kinds."""

import json
import math
from typing import Any

from pipelines.errors import UserError

CAPTION_KEYS = ("caption", "text")
# Of files beside a song; where there are several, the first is taken.
CAPTION_SUFFIXES = ("txt", "json")


def caption_text(value: Any, where: str) -> str:
    """Returns a caption as it stands in a table or in JSON: nothing and "not a number" are the empty one."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str) or not is_unicode(value):
        raise UserError(f"{where}: the caption is {value!r}; expected text, or nothing")
    return value


def caption_beside(suffix: str, content: bytes, name: str) -> str:
    """Returns the caption in a file that lies beside a song.

    Args:
        suffix: one of `CAPTION_SUFFIXES`. A "json" holds an object with a key of `CAPTION_KEYS`.
        content: of the file, UTF-8.
        name: of the file, for errors.

    Raises:
        UserError: it is neither.
    """
    try:
        if suffix == "txt":
            return content.decode("utf-8-sig").strip()
        record = json.loads(content)
    except ValueError as error:
        raise UserError(f"{name} holds no caption in UTF-8 ({error}); write text, or JSON with a caption") from error
    keys = [key for key in CAPTION_KEYS if isinstance(record, dict) and key in record]
    if not keys:
        found = ", ".join(map(repr, record)) if isinstance(record, dict) else "no object"
        raise UserError(f"{name} holds {found or 'no keys'}; expected an object with the key 'caption' or 'text'")
    return caption_text(record[keys[0]], name)


def is_unicode(text: str) -> bool:
    """Says if a text can be written: JSON, and what a program makes, may hold halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
