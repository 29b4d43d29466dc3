"""Captions of clips: templates filled in, and a function of the user's own that has the last word."""

import importlib
import string
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipelines.captioned.captions import is_unicode
from pipelines.errors import RunError, UserError, named, one_line

# From what is known of a clip to its caption.
Hook = Callable[[dict[str, Any]], str]
# What joins a caption to the rest of a template.
JOINERS = " ,;:."


def check_template(template: str, fields: Sequence[str], where: str) -> None:
    """Checks that a template can be filled in.

    Args:
        template: a text with names of fields in braces; `{{` and `}}` stand for braces.
        fields: the names that it may hold.
        where: what the message calls it.

    Raises:
        UserError: it cannot.
    """
    listed = ", ".join(f"{{{field}}}" for field in fields)
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"{where} is {template!r} ({error}); write {{{{ and }}}} for braces themselves") from error
    for _, name, form, conversion in parts:
        if name is not None and (name not in fields or form or conversion):
            written = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            raise UserError(
                f"{where} has {{{one_line(written)}}}; it may have {listed}, and {{{{ and }}}} for braces themselves"
            )


def fill(template: str, values: Mapping[str, str]) -> str:
    """Fills a template in; values stay as they are, whatever characters they hold.

    Where it begins or ends with the caption of a song that has none, what joined that to the rest falls away.

    Args:
        template: as of `check_template`.
        values: by the field.
    """
    missing = {f"{{{field}}}": field for field, value in values.items() if not value.strip()}
    text = template.format_map({**values, **dict.fromkeys(missing.values(), "")})
    text = text.lstrip(JOINERS) if template.startswith(tuple(missing)) else text
    return text.rstrip(JOINERS) if template.endswith(tuple(missing)) else text


def spoken(names: Sequence[str]) -> str:
    """Names as a sentence has them: "drums", "drums and bass", "drums, bass and other"."""
    return " and ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), *names[-1:]])


def load_hook(name: str) -> Hook:
    """Imports a function of the user's own, and returns it with its mistakes made a `RunError`.

    It is called by several threads, one at a time, with a dict: `caption` (the song's), `template_caption` (what the
    recipe's template gives), `kind`, `song` and `sources` (a list); of a remix also `other_caption`, `other_song` and
    `other_sources`. It returns the clip's caption.

    Args:
        name: as `module:function`; the module lies in the current folder or is installed.

    Raises:
        UserError: there is no such function.
        RunError: when it is called, it fails or returns no text that can be written.
    """
    module_name, colon, function_name = name.partition(":")
    if not (colon and function_name.isidentifier() and all(map(str.isidentifier, module_name.split(".")))):
        raise UserError(f"{name!r} is no function for captions; name it as module:function, such as captions:rewrite")
    try:
        module = importlib.import_module(module_name)
    # It is the user's code: whatever happens in it is theirs to mend.
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{module_name}, which should hold the function for captions, cannot be imported "
            f"({named(error)}); mend it, or run from its folder"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(f"{module_name} has no function {function_name!r} for captions; define it, or name another")

    one_at_a_time = threading.Lock()

    def caption(facts: dict[str, Any]) -> str:
        try:
            with one_at_a_time:
                text = function(facts)
        except (Exception, SystemExit) as error:
            raise RunError(f"{name} fails for song {facts['song']!r} ({named(error)}); mend the function") from error
        if not isinstance(text, str) or not text.strip() or not is_unicode(text):
            raise RunError(
                f"{name} returns {text!r:.60} for song {facts['song']!r}; expected a caption, a text that is not empty"
            )
        return text

    return caption
