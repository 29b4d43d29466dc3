"""`python -m sepnet.augment SOURCE DEST --model NAME`: makes captioned stem data of captioned songs."""

import argparse
import hashlib
import math
import uuid
from collections.abc import Mapping, Sequence

from pipelines.captioned.collection import read_collection
from pipelines.errors import CommandParser, UserError, check_packages, folder_name, positive, run_command, user_path
from pipelines.progress import progress_bar
from pipelines.storage import address_of, open_place
from sepnet.augmentation.summary import Spent, print_summary, summarize
from sepnet.clips.captions import load_hook
from sepnet.clips.recipes import read_recipe
from sepnet.config.flags import add_saved_models
from sepnet.export.contract import read_contract
from sepnet.export.write import newest_version
from sepnet.stem_sets.settings import StemSetSettings, songs_digest
from sepnet.stem_sets.stem_set import AUDIO_FORMATS, LAYOUTS, StemSet

# Of the usual file systems.
LONGEST_NAME_BYTES = 255


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command.

    Raises:
        UserError: the collection, the recipe or the model cannot be used, or the set not written.
    """
    arguments = _parser().parse_args(argv)
    check_packages(["ray", "pyarrow", "pyloudnorm", "librosa"], "sepnet.augment", "scale")
    version = newest_version(arguments.saved_models / arguments.model)
    contract = read_contract(version)
    recipe = read_recipe(arguments.recipe, contract["sources"])
    if arguments.hook:
        load_hook(arguments.hook)
    songs = read_collection(arguments.source, arguments.dest)
    if arguments.layout == "folder":
        _check_file_names([song.id for song in songs])
    model = {str(path.relative_to(version)): path.read_bytes() for path in sorted(version.rglob("*")) if path.is_file()}
    settings = StemSetSettings(
        model=arguments.model,
        model_version=version.name,
        model_sha256=_digest(model),
        recipe_sha256=recipe.digest,
        hook=arguments.hook,
        clip_seconds=recipe.clip_seconds,
        audio_format=arguments.format,
        layout=arguments.layout,
        num_songs=len(songs),
        songs_sha256=songs_digest(songs),
        songs_per_shard=arguments.songs_per_shard,
    )
    stem_set = StemSet.create_or_continue(address_of(*open_place(arguments.dest)), settings)
    spent, workers = Spent(), arguments.workers or 1
    if shards := stem_set.shards_to_do():
        # Ray takes seconds to start: only after everything that can be refused without it.
        from sepnet.augmentation.engine import make_shards, start_ray, threads_per_worker
        from sepnet.augmentation.worker import Job

        # More than shards would only take cores from those that have one.
        workers = min(start_ray(arguments.ray_address, arguments.workers, sum(map(len, model.values()))), len(shards))
        val_mse = contract.get("metrics", {}).get("val_mse")
        threads = threads_per_worker(workers)
        job = Job(stem_set, songs, recipe, arguments.hook, threads, val_mse, run=uuid.uuid4().hex)
        begin, end = math.inf, 0.0
        with progress_bar("separating", total=len(songs), unit="songs") as advance:
            advance(len(songs) - sum(len(job.songs_of(shard)) for shard in shards))
            for row in make_shards(job, model, shards, workers):
                spent.add(row, len(job.songs_of(row["shard"])))
                # Workers load the model before their first shard begins, and rows come here some time after its end.
                begin, end = min(begin, row["ended"] - row["seconds"]), max(end, row["ended"])
                spent.seconds = end - begin
                advance(len(job.songs_of(row["shard"])))
    else:
        print(f"nothing to do: all {settings.num_shards} shards are there")
    totals = stem_set.finish()
    summary = summarize(totals, spent, workers, arguments.cluster)
    # A run that separated nothing takes no other one's place, unless that was killed before it wrote any.
    if "rates" in summary or not stem_set.has_summary():
        stem_set.write_summary(summary)
    print_summary(summary)
    if totals.num_failed == totals.num_songs:
        raise UserError(f"none of the {totals.num_songs} songs could be used; failed.parquet says why")
    print(f"stem set:  {arguments.dest}")
    print(f"next:      python -m sepnet.preview {arguments.dest}")


def _digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 of files and their names."""
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _check_file_names(ids: Sequence[str]) -> None:
    """Raises a `UserError` for a song that no folder can be called after, before hours have gone into others."""
    for song_id in ids:
        if any(len(part.encode()) > LONGEST_NAME_BYTES for part in song_id.split("/")):
            raise UserError(
                f"the song {song_id!r:.60}... has a name of more than {LONGEST_NAME_BYTES} bytes, which no folder can "
                "have; give it another `id`, or take --layout webdataset"
            )


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m sepnet.augment", description=__doc__.partition(": ")[2], allow_abbrev=False)
    parser.add_argument(
        "source", metavar="SOURCE", help="folder of songs, manifest (.jsonl, .csv, .parquet) or shards (.tar)"
    )
    parser.add_argument("dest", metavar="DEST", help="folder of the stem set; what is there of it is kept")
    parser.add_argument("--model", type=folder_name, required=True, metavar="NAME", help="of a model in --saved-models")
    parser.add_argument(
        "--recipe", type=user_path, metavar="FILE", help="what clips are made (default: docs/augment.md)"
    )
    parser.add_argument("--hook", default="", metavar="MODULE:FUNCTION", help="function that makes captions")
    parser.add_argument("--format", choices=AUDIO_FORMATS, default="flac", help="of the audio [flac]")
    parser.add_argument("--layout", choices=LAYOUTS, default="webdataset", help="shards, or plain files [webdataset]")
    parser.add_argument(
        "--songs-per-shard", type=positive, default=8, metavar="N", help="that are written as one, and remixed [8]"
    )
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="models at once (default: one for each GPU or machine)"
    )
    parser.add_argument("--ray-address", metavar="HOST:PORT", help="of a Ray cluster (default: this machine alone)")
    parser.add_argument(
        "--cluster",
        type=positive,
        default=100,
        metavar="N",
        help="workers for which a million songs are reckoned [100]",
    )
    add_saved_models(parser)
    return parser


if __name__ == "__main__":
    run_command(main)
