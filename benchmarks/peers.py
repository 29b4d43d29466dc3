"""Open-Unmix in an environment of its own, which the benchmarks make on first use."""

import pathlib
import subprocess
import venv

PACKAGES = ("openunmix==1.3.0", "torch", "torchaudio")
FOLDER = pathlib.Path("benchmarks/results/open-unmix")


def run_open_unmix(*arguments: object) -> None:
    """Runs `benchmarks/open_unmix.py`, whose results lie in `FOLDER` afterwards."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    python = FOLDER / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(FOLDER / "venv", with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    subprocess.run([python, "-m", "benchmarks.open_unmix", FOLDER, *map(str, arguments)], check=True)
