"""What the system refuses is one message and an exit code, and nothing is lost."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from bascule.cli.failures import explain
from bascule.core.files import write_atomically

_MAIN = "from bascule.cli import main; main()"


def shell(words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a shell; `bascule` is this one."""
    script = f"set -o pipefail; bascule() {{ '{sys.executable}' -c '{_MAIN}' \"$@\"; }}; {words}"
    known = {**os.environ, **environment}
    return subprocess.run(["bash", "-c", script], cwd=folder, env=known, capture_output=True, timeout=60, check=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
def test_a_full_disk_is_one_message(tmp_path: Path) -> None:
    done = shell("bascule ls > /dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(
        b"bascule: cannot read or write 'standard output': No space left on device. Make room"
    )
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("words", ["ls", "schema", "new study"])
def test_a_reader_that_has_gone_is_left_in_peace(words: str, tmp_path: Path) -> None:
    """As by other programs of a pipe; the exit code is that of SIGPIPE."""
    done = shell(f"bascule {words} | :; exit ${{PIPESTATUS[0]}}", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (141, b"", b"")


def test_closed_streams_are_nobodys_files(tmp_path: Path) -> None:
    """A file opened later would get their numbers, and what is printed would go into it."""
    done = shell("bascule ls <&- >&- 2>&-", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_letters_that_the_output_lacks_are_replaced(tmp_path: Path) -> None:
    done = shell("bascule show attack/pgd; bascule show explain/umap; bascule validate '\u6570.yaml'", tmp_path,
                 PYTHONIOENCODING="cp1252")  # fmt: skip
    assert b"Traceback" not in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize("name", ["null", "full", "stdout", "fd/1"])
def test_devices_are_not_replaced(bascule: Callable, study: Path, name: str) -> None:
    assert bascule("run", str(study)).code == 0
    said = bascule("report", "tiny", "--output", f"/dev/{name}")
    assert said.code == 2
    assert "is a device or a pipe" in said.err or "is a folder" in said.err
    assert Path("/dev/null").is_char_device()


def test_outputs_follow_links_and_nothing_else_is_replaced(bascule: Callable, study: Path, tmp_path: Path) -> None:
    assert bascule("run", str(study)).code == 0
    link, target = tmp_path / "link.html", tmp_path / "kept" / "page.html"
    link.symlink_to(target)
    assert bascule("report", "tiny", "--output", str(link)).code == 0
    assert link.is_symlink()
    assert target.read_text().startswith("<!DOCTYPE html>")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for name in ("loop", "pipe", "kept"):
        said = bascule("report", "tiny", "--output", str(tmp_path / name))
        assert said.code == 2
        assert "give the name of a file" in said.err
    for name in ("pipe", "tiny.yaml"):
        assert bascule("export", "tiny", "--output", str(tmp_path / name)).code == 2


def test_a_link_in_a_run_is_not_followed_unasked(bascule: Callable, study: Path, tmp_path: Path) -> None:
    """A run that somebody sent may hold one that leads anywhere."""
    assert bascule("run", str(study)).code == 0
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / "runs" / "tiny" / "report.html").symlink_to(precious)
    assert bascule("report", "tiny").code == 0
    assert precious.read_text() == "kept"


def test_a_device_in_place_of_a_file_is_left(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(Exception, match="is a device or a pipe"):
        write_atomically(pipe, lambda temporary: temporary.write_text("x"))
    assert pipe.is_fifo()


def _disk_full(temporary: Path) -> None:
    temporary.write_text("half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(path, _disk_full)
    assert [file.name for file in tmp_path.iterdir()] == ["kept.json"]
    assert path.read_text() == "old"
    assert explain(caught.value) == (
        f"cannot read or write '{path}': No space left on device. Make room there, or write to another place. "
        "What is finished is kept; the same command continues."
    )


class SafetensorError(Exception):
    """Called like that of the library."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "x.npz"), "read or write 'x.npz': Permission denied. Ask"),
        (OSError(errno.EIO, "Input/output error", b"x"), "'x': Input/output error. The disk or the network drive"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "y" * 9999), "... (10,001 characters): File name too long"),
        (OSError("parquet: bad\nfooter"), "cannot read or write: parquet: bad footer. What is finished is kept"),
        (MemoryError(), "not enough memory (MemoryError). Use fewer or smaller images"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), "not enough memory (DefaultCPUAllocator"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (SafetensorError("No space left"), "a file of weights cannot be read or written: No space left"),
    ],
)  # fmt: skip
def test_the_systems_errors_in_words(error: Exception, said: str) -> None:
    text = explain(error)
    assert text is not None
    assert said in text
    assert len(text) < 800
    behind = ValueError("a library's own words")
    behind.__cause__ = error
    assert explain(behind) == text


def test_faults_of_ours_keep_their_traceback() -> None:
    assert explain(KeyError("x")) is None
    assert explain(RuntimeError("shapes do not fit")) is None


@pytest.mark.parametrize(
    "error", [MemoryError(), RecursionError("deep"), PermissionError(13, "Permission denied", "x")]
)
def test_main_says_it_once(bascule: Callable, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("bascule.core.catalog.names", refuse)
    said = bascule("ls", "attack")
    assert said.code == 1
    assert said.err.startswith("bascule: ")
    assert said.err.count("\n") == 1


def test_our_warnings_are_one_line(bascule: Callable) -> None:
    bascule("--version")
    from bascule.data import decode

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        text = warnings.formatwarning(UserWarning("a\x1bb"), UserWarning, decode.__file__, 1)
        again = warnings.formatwarning(UserWarning("a\x1bb"), UserWarning, decode.__file__, 1)
        other = warnings.formatwarning(UserWarning("a"), UserWarning, "elsewhere.py", 1)
    assert text == "bascule: warning: a\\x1bb\n"
    assert again == "", "said once by each command, whatever libraries do to Python's own memory of it"
    assert other.startswith("elsewhere.py:1")
