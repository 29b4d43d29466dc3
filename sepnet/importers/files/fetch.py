"""Downloads: gone on with where they broke off, checked, whole or not there."""

import hashlib
import http.client
import pathlib
import urllib.error
import urllib.request

from pipelines.errors import UserError, one_line
from pipelines.files import folder_lock
from pipelines.progress import progress_bar

CHUNK_BYTES = 1 << 20
SECONDS_TO_WAIT = 60


def fetch(url: str, path: pathlib.Path, sha256: str | None) -> None:
    """Downloads a file, unless it is there.

    What has come of one that breaks off stays beside it as `NAME.part`, with which the next call goes on. Of several
    processes that want one file, one fetches it.

    Args:
        url: of http or https; redirects are followed.
        path: where it is to lie.
        sha256: hexadecimal; None where the publisher states none.

    Raises:
        UserError: there is no answer, no such file, no room, or another file than the one that was published.
    """
    with folder_lock(path.parent):
        if path.exists():
            return
        part = path.with_name(f"{path.name}.part")
        try:
            _download(url, part)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise UserError(
                    f"{url} answers {error.code} {error.reason}; give --weights a file that you have"
                ) from error
            # All of it was there, or too much.
            if not sha256 or _sha256(part) != sha256:
                part.unlink()
                raise UserError(f"{url} is shorter than what was fetched of it before; start again") from error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = one_line(getattr(error, "reason", error))
            raise UserError(
                f"{url} cannot be fetched ({reason}); start again to go on with it, or give --weights a file that you "
                "have"
            ) from error
        except OSError as error:
            raise UserError(f"cannot write {part}: {error.strerror}; make room and start again to go on") from error
        if sha256 and _sha256(part) != sha256:
            part.unlink()
            raise UserError(f"{url} gives another file than the one that was published (SHA-256 differs); start again")
        part.rename(path)


def _download(url: str, part: pathlib.Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "sepnet", **({"Range": f"bytes={have}-"} if have else {})}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SECONDS_TO_WAIT) as answer:
        goes_on = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        length = answer.headers.get("Content-Length")
        expected = None if length is None else int(length)
        total = (expected or 0) + have * goes_on
        with (
            open(part, "ab" if goes_on else "wb") as file,
            progress_bar(f"fetching {part.stem}", total=total / 1e6, unit="MB") as advance,
        ):
            advance(have * goes_on / 1e6)
            came = 0
            while chunk := _read(answer):
                file.write(chunk)
                came += len(chunk)
                advance(len(chunk) / 1e6)
        if expected is not None and came < expected:
            raise ConnectionError(f"it broke off after {came} of {expected} bytes")


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read(CHUNK_BYTES)
    except OSError as error:
        # Such as "No route to host"; those of the disk are of the same class.
        raise ConnectionError(error.strerror or error) from error


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
