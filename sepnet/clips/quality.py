"""The gate: which clips are good enough, and why others are not."""

import dataclasses

from sepnet.clips.measures import Measures


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a clip's `sepnet.clips.measures.Measures`; None checks nothing."""

    max_silence: float | None = None
    min_loudness_lufs: float | None = None
    max_bleed: float | None = None
    max_clipping: float | None = None


def gate(measures: Measures, limits: Limits) -> tuple[str, ...]:
    """Returns the reasons why a clip does not pass, each the same text for all clips; none if it passes.

    A clip too quiet or too short for its loudness to be measured does not pass where a loudness is asked for. One
    without a measure of bleed does.
    """
    reasons = []
    if limits.max_silence is not None and measures.silence > limits.max_silence:
        reasons.append(f"silence above {limits.max_silence:g}")
    if limits.min_loudness_lufs is not None:
        if measures.loudness_lufs is None:
            reasons.append("no measurable loudness")
        elif measures.loudness_lufs < limits.min_loudness_lufs:
            reasons.append(f"loudness below {limits.min_loudness_lufs:g} LUFS")
    if limits.max_bleed is not None and measures.bleed is not None and measures.bleed > limits.max_bleed:
        reasons.append(f"bleed above {limits.max_bleed:g}")
    if limits.max_clipping is not None and measures.clipping > limits.max_clipping:
        reasons.append(f"clipping above {limits.max_clipping:g}")
    return tuple(reasons)
