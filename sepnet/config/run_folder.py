"""temporary until merge"""
import pathlib
from pipelines.errors import UserError
from sepnet.config.config import Config


def read_run_config(run: pathlib.Path) -> Config:
    try:
        return Config.from_json((run / "config.json").read_text())
    except OSError as error:
        raise UserError(f"{run} holds no config.json ({error.strerror}); give the folder of a run") from error
