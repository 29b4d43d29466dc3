"""`python -m sepnet.evaluate MODEL...`: scores models on whole songs as the field does, beside floors and a ceiling."""

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.errors import CommandParser, UserError, positive, run_command, user_path
from pipelines.files import check_writable, whole_file
from sepnet.config.data import Data
from sepnet.config.flags import add_flags_of, section_from_flags
from sepnet.config.songs import config_tracks, data_of, data_root
from sepnet.evaluation.bss_eval import check_installed
from sepnet.evaluation.pictures import draw_comparison
from sepnet.evaluation.published import why_not_comparable
from sepnet.evaluation.scores import Job, check_names
from sepnet.evaluation.songs import evaluate
from sepnet.evaluation.speech import speech_sources
from sepnet.evaluation.tables import print_comparison, print_museval, print_speech, print_whole_songs
from sepnet.export.saved_model import read_models
from sepnet.measures.provenance import content_hash
from sepnet.models.keras_settings import load_keras


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command.

    Raises:
        UserError: a model, the data or the output folder cannot be used, or the models have different sources.
    """
    arguments = _parser().parse_args(argv)
    models, parts, others, num_channels = read_models(arguments.models)
    check_names(models)
    if not arguments.quick:
        check_installed()
    elif arguments.compare:
        raise UserError("--compare needs museval's figures; leave out --quick")
    speech = speech_sources(arguments.speech, parts, arguments.quick)

    data, parts = data_of(parts, others, num_channels, section_from_flags(Data, arguments))
    root, tracks = data_root(data), config_tracks(data)[arguments.split]
    if not tracks:
        raise UserError(f"{root} has no song in its {arguments.split} split; choose another with --split")
    if tracks[0].is_recording:
        raise UserError(f"{root} holds recordings, and no mixtures to train on; choose --split valid or test")
    output = arguments.output or pathlib.Path("evaluations", f"{root.resolve().name}-{arguments.split}")
    check_writable(output)
    hashes = {name: _model_hash(version) for name, version in models.items()}
    jobs = [Job(track, parts, models, hashes, output, arguments.quick, speech) for track in tracks]
    # TensorFlow takes seconds to load: only after everything that can be refused without it.
    load_keras()
    figures = evaluate(jobs, arguments.workers)
    _print_figures(figures, list(parts), f"{len(tracks)} {arguments.split} songs of {root}, whole", output)
    if arguments.compare:
        _compare(figures, tracks, list(parts), output)


def _model_hash(version: pathlib.Path) -> str:
    files = (path for path in version.rglob("*") if path.is_file())
    return content_hash({path.relative_to(version).as_posix(): path for path in files})


def _print_figures(figures: Mapping[str, Any], sources: Sequence[str], title: str, output: pathlib.Path) -> None:
    print_whole_songs(figures["methods"], sources, title)
    if any("speech" in row for row in figures["methods"].values()):
        print_speech(figures["methods"])
    if any("museval" in row for row in figures["methods"].values()):
        print_museval(figures["methods"], sources)
    for one in figures["too_quiet"]:
        print(f"left out of SI-SDR and SDR: {one['source']} of {one['song']!r}, below -80 dBFS")
    left_out: dict[tuple[str, str, str], list[str]] = {}
    for one in figures["left_out"]:
        left_out.setdefault((one["source"], one["song"], one["reason"]), []).append(one["method"])
    for (source, song, reason), methods in left_out.items():
        print(f"left out of museval's figures of {', '.join(methods)}: {source} of {song!r}, {reason}")
    print(f"figures: {output / 'figures.json'}")


def _compare(figures: Mapping[str, Any], tracks: Sequence, sources: Sequence[str], output: pathlib.Path) -> None:
    measured = {name: row for name, row in figures["methods"].items() if "museval" in row}
    caution = why_not_comparable(tracks, sources)
    print_comparison(measured, sources, caution)
    with whole_file(output / "comparison.png") as temporary:
        draw_comparison(temporary, measured, sources, caution)
    print(f"picture: {output / 'comparison.png'}")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m sepnet.evaluate", description=__doc__.partition(": ")[2], allow_abbrev=False)
    parser.add_argument("models", type=user_path, nargs="+", metavar="MODEL", help="saved_models/NAME")
    add_flags_of(parser, Data, ("data", "sources", "sample_rate", "snr_db", "skip_bad"))
    parser.add_argument("--split", choices=("train", "valid", "test"), default="test", help="which songs [test]")
    parser.add_argument(
        "-o", "--output", type=user_path, help="folder for the figures [evaluations/NAME OF THE DATA-SPLIT]"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="leave out museval and the ideal ratio mask, which take most of the time, PESQ, STOI",
    )
    parser.add_argument(
        "--speech", metavar="NAMES", help="sources that get PESQ and STOI, with commas [speech; none with --quick]"
    )
    parser.add_argument("--compare", action="store_true", help="set the models beside published ones, and draw them")
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="songs at a time (default: what cores and memory allow)"
    )
    return parser


if __name__ == "__main__":
    run_command(main)
