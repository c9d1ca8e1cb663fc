"""Fetching the files of a source: every file is known by its hash, so where it comes from does not matter."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bascule.core.errors import RequestError
from bascule.core.files import write_atomically
from bascule.core.fingerprint import file_digest

_TIMEOUT = 60
"""Seconds without a byte after which a server is given up."""
_PIECE = 2**20


@dataclass(frozen=True, kw_only=True)
class Remote:
    """One file on the web."""

    path: str
    """Where it is kept under the data folder, with / between folders."""
    places: tuple[str, ...]
    """Addresses of folders that hold it under its name, tried in order."""
    sha256: str
    size: int
    """Bytes; more are not read."""

    @property
    def name(self) -> str:
        """The file's own name."""
        return PurePosixPath(self.path).name


def fetch(
    remote: Remote, folder: Path, *, place: str | None = None, report: Callable[[str], None] = lambda _: None
) -> bool:
    """See to it that `remote` lies under `folder`; False when it did already.

    Nothing but the whole, right file is ever put in place: a download that breaks off or has another hash leaves no
    trace.

    Args:
        remote: The file.
        folder: Of the data.
        place: Address of a folder to get it from, instead of the file's own places.
        report: Told in words what is being done.

    Raises:
        RequestError: No place gave the file; says what each one gave.
    """
    target = folder / remote.path
    if target.is_file() and file_digest(target) == remote.sha256:
        report(f"{target} is there")
        return False
    failures = []
    for base in (place,) if place else remote.places:
        url = f"{base.rstrip('/')}/{remote.name}"
        report(f"{url} ({remote.size / 1e6:.1f} MB)")
        try:
            write_atomically(target, lambda temporary, url=url: _download(url, temporary, remote))  # type: ignore[misc]
        except _UnfitError as error:
            failures.append(f"{url}: {error}")
        except OSError as error:
            raise RequestError(f"cannot write {target}: {error}") from error
        else:
            return True
    raise RequestError(
        f"cannot get {remote.name}: {'; '.join(failures)}. Give another place with `place`, or put the file "
        f"(SHA-256 {remote.sha256}) at {target} yourself."
    )


class _UnfitError(Exception):
    """The address did not give the file."""


def _download(url: str, target: Path, remote: Remote) -> None:
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as file:
        for piece in _pieces(url, remote.size):
            digest.update(piece)
            size += len(piece)
            file.write(piece)
    if digest.hexdigest() != remote.sha256:
        given = f"{size} bytes" if size <= remote.size else "more"
        raise _UnfitError(f"is not the file expected ({given} instead of {remote.size}, another SHA-256); removed")


def _pieces(url: str, size: int) -> Iterator[bytes]:
    """The content behind `url`, at most one byte more than `size`."""
    left = size + 1
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "bascule"})
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            while left > 0 and (piece := answer.read(min(_PIECE, left))):
                left -= len(piece)
                yield piece
    except urllib.error.HTTPError as error:
        raise _UnfitError(f"the server answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _UnfitError(f"no connection ({error.reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _UnfitError(f"the connection broke ({type(error).__name__}: {error})") from error
    except ValueError as error:
        raise _UnfitError(f"no address to download from ({error})") from error
