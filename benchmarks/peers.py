"""Programs of others in environments of their own, which the benchmarks make on first use."""

import dataclasses
import pathlib
import subprocess
import venv
from collections.abc import Sequence

from benchmarks.children import run_child
from pipelines.files import whole_folder

RESULTS = pathlib.Path("benchmarks/results")


@dataclasses.dataclass(frozen=True)
class Peer:
    """A module of `benchmarks` that needs packages which this project does not.

    Attributes:
        module: runs as `python -m benchmarks.MODULE FOLDER ARGUMENTS...`.
        packages: with their versions.
    """

    module: str
    packages: Sequence[str]

    @property
    def folder(self) -> pathlib.Path:
        """The folder of its environment, and of what it reads and writes."""
        return RESULTS / self.module.replace("_", "-")

    def run(self, *arguments: object) -> None:
        """Runs it; what it wrote lies in the folder afterwards."""
        self.folder.mkdir(parents=True, exist_ok=True)
        environment, python = self.folder / "venv", pathlib.Path("bin", "python")
        if not environment.exists():
            with whole_folder(environment) as folder:
                venv.create(folder, with_pip=True)
                subprocess.run([folder / python, "-m", "pip", "install", "--quiet", *self.packages], check=True)
        run_child([environment / python, "-m", f"benchmarks.{self.module}", self.folder, *arguments])


OPEN_UNMIX = Peer("open_unmix", ("openunmix==1.3.0", "torch", "torchaudio"))
DENOISERS = Peer("denoisers", ("noisereduce==3.0.3", "pyrnnoise==0.4.5", "soxr>=0.4"))
