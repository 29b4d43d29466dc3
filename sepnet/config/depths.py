"""Depths as a command line gives them."""

import re

from pipelines.errors import UserError


def parse_depths(text: str) -> range:
    """Reads the depths of "1-12" or "6".

    Raises:
        UserError: the text is no such range.
    """
    # No song has 2**100 samples.
    match = re.fullmatch(r"([0-9]{1,2})(?:-([0-9]{1,2}))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last:
        raise UserError(f"--depths is {text!r}, which is no depth; give the first and the last, such as 3-9")
    return range(first, last + 1)
