"""Data sets downloaded from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bascule.data.download import Remote
from bascule.data.mnist import Mnist


def test_getting_data(bascule: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bascule("data", "get", "digits").out == "data/digits needs no files\n"
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "part").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    part = Remote(path="MNIST/raw/part", places=("http://127.0.0.1:9",), sha256=digest, size=3)
    monkeypatch.setattr(Mnist, "remote", (part,))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    said = bascule("data", "get", "mnist", "--from", (tmp_path / "web").as_uri())
    assert said.code == 0
    assert (tmp_path / "home/.cache/bascule/MNIST/raw/part").read_bytes() == b"abc"
    assert said.out.endswith(f"data/mnist is in {tmp_path}/home/.cache/bascule\n")
    there = bascule("data", "get", "mnist", "--data-dir", "elsewhere")
    assert there.code == 2
    assert "cannot get part: http://127.0.0.1:9/part: no connection" in there.err
    assert len(there.err.splitlines()) == 1
