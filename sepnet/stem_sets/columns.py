"""The columns of a stem set's tables."""

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow

# What two runs measure differently, and lists that may be empty: readers guess columns by the first clips.
NOT_BESIDE_AUDIO = ("reasons", "separation_seconds", "shard", "file")


@functools.cache
def clip_schema() -> "pyarrow.Schema":
    """The columns of `manifest.parquet`, a row for each clip. Each field tells its `description` and its `unit`."""
    import pyarrow as pa

    text, number, names = pa.string(), pa.float64(), pa.list_(pa.string())
    return pa.schema(
        [
            _column("id", text, "name of the clip, the only one that has it"),
            _column("song_id", text, "id of the song"),
            _column("other_song_id", text, "of a remix, id of the other song", nullable=True),
            _column("start_seconds", number, "where in the song the clip begins", "s"),
            _column("other_start_seconds", number, "of a remix, where in the other song", "s", True),
            _column("duration_seconds", number, "length of the clip", "s"),
            _column("sample_rate", pa.int32(), "of the audio file", "Hz"),
            _column("num_channels", pa.int32(), "of the audio file"),
            _column("kind", text, "what the recipe calls it: stem, without, together or remix"),
            _column("sources", names, "stems of the song that the clip holds"),
            _column("other_sources", names, "of a remix, stems of the other song", nullable=True),
            _column("song_caption", text, "caption of the song, empty if it has none"),
            _column("caption", text, "caption of the clip"),
            _column("loudness_lufs", number, "integrated loudness by EBU R 128", "LUFS", True),
            _column("silence", number, "share of the time that is silent", "0 to 1"),
            _column(
                "bleed",
                number,
                "estimated share of the energy that comes from sources which it should not hold",
                "0 to 1",
                True,
            ),
            _column(
                "snr_before_db",
                number,
                "of a stem, its energy over that of the rest of the mixture, estimated",
                "dB",
                True,
            ),
            _column("snr_after_db", number, "of a stem, the same in the clip, by `bleed`", "dB", True),
            _column("clipping", number, "share of the samples in runs at full scale", "0 to 1"),
            _column("gain_db", number, "applied so that nothing exceeds full scale", "dB"),
            _column("passes", pa.bool_(), "whether the clip passes the quality gate"),
            _column("reasons", names, "why it does not"),
            _column("tempo_bpm", number, "estimated tempo of the song", "beats per minute", True),
            _column("tempo_confidence", number, "how sure the tempo is", "0 to 1", True),
            _column("key", text, "estimated key of the song", nullable=True),
            _column("key_confidence", number, "how sure the key is", "0 to 1", True),
            _column("shard", pa.int32(), "number of the shard"),
            _column("file", text, "file of the set that holds the clip: a tar, or the audio file"),
            _column("member", text, "name of the audio in the tar", nullable=True),
            _column("sha256", text, "SHA-256 of the audio file, hexadecimal"),
            _column("model", text, "name of the model"),
            _column("model_version", text, "version of the model"),
            _column("val_mse", number, "error of the model on its validation songs", "full scale squared", True),
            _column(
                "separation_seconds", number, "time that the clip's share of the separation took; 0 for a remix", "s"
            ),
            _column(
                "separation_joules",
                number,
                "energy of that share, the clips' own making in it, where it was measured; 0 for a remix",
                "J",
                True,
            ),
        ]
    )


@functools.cache
def failed_schema() -> "pyarrow.Schema":
    """The columns of `failed.parquet`, a row for each song that is not in the set, or not all of it."""
    import pyarrow as pa

    return pa.schema(
        [
            _column("song_id", pa.string(), "id of the song"),
            _column("shard", pa.int32(), "number of the shard that it belongs to"),
            _column("reason", pa.string(), "what went wrong, or was passed over"),
            _column("num_clips", pa.int32(), "clips of it that are in the set all the same"),
        ]
    )


@functools.cache
def names_beside_audio() -> tuple[str, ...]:
    """The columns that also stand in the JSON beside a clip: those that every clip has, and every run alike."""
    return tuple(field.name for field in clip_schema() if not field.nullable and field.name not in NOT_BESIDE_AUDIO)


def _column(
    name: str, kind: "pyarrow.DataType", description: str, unit: str = "", nullable: bool = False
) -> "pyarrow.Field":
    import pyarrow as pa

    return pa.field(name, kind, nullable, {"description": description, "unit": unit})
