"""Depths as a command line gives them."""

import re

from pipelines.errors import UserError


def parse_depths(text: str) -> list[int]:
    """Reads the depths of "1-12", "6" or "3,6,9-12", in order.

    Raises:
        UserError: the text is none of these.
    """
    depths: set[int] = set()
    for part in text.split(","):
        # No song has 2**100 samples.
        match = re.fullmatch(r"([0-9]{1,2})(?:-([0-9]{1,2}))?", part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last:
            raise UserError(
                f"--depths is {text!r}, which is no depth; give the first and the last, such as 3-9, or 3,6"
            )
        depths.update(range(first, last + 1))
    return sorted(depths)
