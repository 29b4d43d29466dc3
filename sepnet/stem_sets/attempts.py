"""What was tried of a shard that is not done, so that no song ends its workers for ever."""

import collections
import json

from sepnet.stem_sets.destination import Destination

# One may be by chance: another program took the memory, or the machine went away.
MOST_DEATHS = 3
ATTEMPTS_SUFFIX = ".attempts.json"


class Attempts:
    """The song of a shard that a worker is at, and how many workers died at each; kept with the set.

    A worker that finds what another one of its own run left knows that this one died. A run that ended as a whole, by
    Ctrl-C or by SIGKILL, is no song's fault: nothing is counted then, and what was counted before is kept.

    Args:
        destination: of the set.
        shard: its number.
        run: a name that no other run has.
    """

    def __init__(self, destination: Destination, shard: int, run: str):
        self._destination, self._run = destination, run
        self._name = f"parts/shard-{shard:05d}{ATTEMPTS_SUFFIX}"
        left = destination.read(self._name)
        kept = json.loads(left) if left else {"run": "", "deaths": {}}
        self._deaths = collections.Counter(kept["deaths"])
        if kept["run"] == run:
            self._deaths[kept["song"]] += 1

    def fault(self, song_id: str) -> str:
        """Says why a song is not tried any more; empty if it is."""
        deaths = self._deaths[song_id]
        if deaths < MOST_DEATHS:
            return ""
        return f"{deaths} workers died at it, of a crash or of too little memory; convert the song, or take it out"

    def begin(self, song_id: str) -> None:
        """Notes that the worker is at a song.

        Raises:
            UserError: it cannot be written.
        """
        kept = {"run": self._run, "song": song_id, "deaths": self._deaths}
        with self._destination.working_folder() as folder:
            file = folder / "attempts"
            file.write_text(json.dumps(kept), encoding="utf-8")
            self._destination.put(file, self._name)

    def end(self) -> None:
        """Notes that the worker is at no song any more, and forgets the deaths.

        Raises:
            UserError: that cannot be done.
        """
        self._destination.remove(self._name)
