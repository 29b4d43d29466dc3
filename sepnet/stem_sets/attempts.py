"""`Attempts` at a shard that is not done, counted so that nothing ends its workers for ever."""

import collections
import json

from pipelines.errors import UserError
from sepnet.stem_sets.destination import Destination

# One may be by chance: another program took the memory, or the machine went away.
MOST_DEATHS = 3
ATTEMPTS_SUFFIX = ".attempts.json"


class Attempts:
    """The song that a worker is at while it makes a shard, and how many workers died at each; kept with the set.

    That is a song, or what belongs to none: the model's loading, the writing of the shard.

    A worker that finds what another one of its own run left knows that this one died. A run that ended as a whole, by
    Ctrl-C or by SIGKILL, is no song's fault: nothing is counted then, and what was counted before is kept.

    Args:
        destination: of the set.
        shard: its number.
        run: a name that no other run has.
    """

    def __init__(self, destination: Destination, shard: int, run: str):
        self._destination, self._shard, self._run = destination, shard, run
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

    def begin(self, song_id: str = "") -> None:
        """Notes that the worker is at a song, or at what belongs to none.

        Raises:
            UserError: it cannot be written; or too many workers died at what belongs to no song. These are forgotten,
                for the user may change what they died of.
        """
        if not song_id and self._deaths[""] >= MOST_DEATHS:
            del self._deaths[""]
            self._write("", run="")
            raise UserError(
                f"{MOST_DEATHS} workers died while they loaded the model or wrote shard {self._shard}, of too little "
                "memory, perhaps; end other programs or give fewer --workers, then start again"
            )
        self._write(song_id, self._run)

    def _write(self, song_id: str, run: str) -> None:
        kept = {"run": run, "song": song_id, "deaths": self._deaths}
        with self._destination.working_folder() as folder:
            file = folder / "attempts"
            file.write_text(json.dumps(kept), encoding="utf-8")
            self._destination.put(file, self._name)

    def end(self) -> None:
        """Notes that the shard is made, and forgets the deaths.

        Raises:
            UserError: that cannot be done.
        """
        self._destination.remove(self._name)
