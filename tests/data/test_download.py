"""Downloads: only the whole, right file is ever put in place, wherever it comes from."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import bascule.data.download
from bascule.core.errors import RequestError
from bascule.data.cifar10 import Cifar10
from bascule.data.cifar100 import Cifar100
from bascule.data.download import Remote, fetch
from bascule.data.mnist import Mnist
from bascule.data.svhn import Svhn

CONTENT = bytes(range(256)) * 5000
NOWHERE = "http://127.0.0.1:9/none"
"""The discard port: nobody listens."""


def remote(content: bytes = CONTENT, *places: str) -> Remote:
    digest = hashlib.sha256(content).hexdigest()
    return Remote(path="set/raw/part.bin", places=places, sha256=digest, size=len(content))


def serving(handler: type[BaseHTTPRequestHandler] | partial) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """What the server has."""
    place = tmp_path / "shelf"
    place.mkdir()
    (place / "part.bin").write_bytes(CONTENT)
    return place


@pytest.fixture
def web(shelf: Path) -> Iterator[str]:
    yield from serving(partial(Quiet, directory=str(shelf)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def refused(folder: Path, *said: str, wanted: Remote, place: str | None = None) -> None:
    before = files(folder)
    with pytest.raises(RequestError) as caught:
        fetch(wanted, folder, place=place)
    for text in said:
        assert text in str(caught.value)
    assert files(folder) == before, "something was left behind"


def test_the_file_is_put_in_place_once(web: str, folder: Path) -> None:
    told: list[str] = []
    assert fetch(remote(CONTENT, web), folder, report=told.append)
    assert (folder / "set/raw/part.bin").read_bytes() == CONTENT
    assert files(folder) == ["set/raw/part.bin"]
    assert not fetch(remote(CONTENT, NOWHERE), folder, report=told.append)
    assert told == [f"{web}/part.bin (1.3 MB)", f"{folder}/set/raw/part.bin is there"]


def test_a_damaged_file_is_fetched_again(web: str, folder: Path) -> None:
    (folder / "set/raw").mkdir(parents=True)
    (folder / "set/raw/part.bin").write_bytes(CONTENT[:-1])
    assert fetch(remote(CONTENT, web), folder)
    assert (folder / "set/raw/part.bin").read_bytes() == CONTENT


def test_the_next_place_is_tried(web: str, folder: Path) -> None:
    assert fetch(remote(CONTENT, NOWHERE, f"{web}/other", web + "/"), folder)
    assert files(folder) == ["set/raw/part.bin"]


def test_a_place_of_ones_own_is_the_only_one(web: str, folder: Path) -> None:
    assert fetch(remote(CONTENT, NOWHERE), folder, place=web)
    (folder / "set/raw/part.bin").unlink()
    refused(folder, NOWHERE, "no connection", wanted=remote(CONTENT, web), place=NOWHERE)


@pytest.mark.parametrize(
    "content", [CONTENT[:-1], CONTENT + b"x", CONTENT[::-1], b""], ids=["less", "more", "other", "no"]
)
def test_another_hash_leaves_nothing(web: str, shelf: Path, folder: Path, content: bytes) -> None:
    (shelf / "part.bin").write_bytes(content)
    refused(folder, f"{web}/part.bin: is not the file expected", "removed", wanted=remote(CONTENT, web))


def test_a_damaged_file_stays_where_no_better_one_is_found(web: str, shelf: Path, folder: Path) -> None:
    (folder / "set/raw").mkdir(parents=True)
    (folder / "set/raw/part.bin").write_bytes(b"old")
    (shelf / "part.bin").write_bytes(b"new")
    refused(folder, "another SHA-256", wanted=remote(CONTENT, web))
    assert (folder / "set/raw/part.bin").read_bytes() == b"old"


def test_all_places_are_named_with_what_they_gave_and_the_way_out(web: str, folder: Path) -> None:
    wanted = remote(CONTENT, NOWHERE, f"{web}/other", "nonsense")
    way_out = f"put the file (SHA-256 {wanted.sha256}) at {folder}/set/raw/part.bin yourself"
    refused(
        folder,
        "no connection (",
        "answers 404",
        "no address to download from",
        "another place with `place`",
        way_out,
        wanted=wanted,
    )


class Endless(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"\0" * 65536)
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


def test_an_endless_answer_is_not_read_to_the_end(folder: Path) -> None:
    for web in serving(Endless):
        refused(folder, "more instead of 1280000", wanted=remote(CONTENT, web))


class BreaksOff(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000])

    def log_message(self, *_: object) -> None:
        pass


def test_a_connection_that_breaks_off_leaves_nothing(folder: Path) -> None:
    for web in serving(BreaksOff):
        refused(folder, f"{web}/part.bin: ", wanted=remote(CONTENT, web))


class Progress(BaseHTTPRequestHandler):
    over = threading.Event()

    def do_GET(self) -> None:
        self.over.wait()

    def log_message(self, *_: object) -> None:
        pass


def test_a_silent_server_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bascule.data.download, "_TIMEOUT", 0.2)
    for web in serving(Progress):
        refused(folder, "timed out", wanted=remote(CONTENT, web))
        Progress.over.set()


def test_a_folder_that_cannot_be_written_is_said(web: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="cannot write"):
        fetch(remote(CONTENT, web), tmp_path / "file")


def test_what_the_sources_fetch_is_what_they_read() -> None:
    for source in (Mnist, Cifar10, Cifar100, Svhn):
        assert source.remote
        for part in source.remote:
            assert len(part.sha256) == 64
            # The authors of SVHN publish it over http; what came is known by its hash.
            assert all(place.startswith("http://" if source is Svhn else "https://") for place in part.places)
    assert sum(part.size for part in Mnist.remote or ()) == 11_594_722  # as TensorFlow Datasets counts them


def test_files_under_these_names_are_found(tmp_path: Path) -> None:
    for source in (Mnist, Cifar10, Cifar100, Svhn):
        for part in source.remote or ():
            (tmp_path / part.path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / part.path).write_bytes(b"")
            with pytest.raises(RequestError, match=r"damaged|not an IDX|neither|is not there"):
                source().peek([tmp_path])
