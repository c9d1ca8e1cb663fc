"""Workers that share nothing, without a cluster: what they are sent, what comes back, full disks and losses."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bascule.cli.stopping import stoppable
from bascule.core.errors import RequestError
from bascule.core.images import Exact, Images
from bascule.data.folder import Folder
from bascule.hooks import CellEnd, CellFacts
from bascule.plan.plan import Plan
from bascule.record.cell import CellRecord
from bascule.record.run import RunRecord
from bascule.record.sums import DamagedError, check_sum
from bascule.running import cluster, ray_worker, sent
from bascule.running import ray as engine
from bascule.running.mirror import Changes, Kept, Mirror, needed, whole
from bascule.running.run import Ran, run_plan
from running.stand_in_ray import StandInRay
from running.test_hooks import SMALL, Notes
from running.test_processes import kept

MENDED = SMALL.replace("rows:\n", "rows:\n  Mended: {repair: {name: fine-tune, epochs: 1}}\n").replace(
    "max_test: 40", "max_test: 40, held_out: 50"
)
"""Two models, the second of which is made into a third."""


@contextmanager
def unseen(folder: Path) -> Iterator[tuple[str, str]]:
    """What a worker finds on no folder of its machine."""
    yield "nowhere", str(folder)


def do_on(
    ray: StandInRay, plan: Plan, run: RunRecord, monkeypatch: pytest.MonkeyPatch, *, shared: bool = False, **more: Any
) -> Ran:
    """The plan on this Ray, whose workers see nothing of the run's folder unless it is `shared`."""
    monkeypatch.setattr(engine, "connected", lambda: nullcontext(ray))
    monkeypatch.setattr(sent, "_Ref", lambda fetch: fetch)
    monkeypatch.setattr(ray_worker, "_node_id", lambda: "0")
    if not shared:
        monkeypatch.setattr(engine, "token_in", unseen)
    with ray.head:
        return run_plan(plan, run, device=torch.device("cpu"), roots=(), engine="ray", **more)


@pytest.fixture
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where workers make their folders."""
    place = tmp_path / "node"
    place.mkdir()
    monkeypatch.setattr(ray_worker.tempfile, "tempdir", str(place))
    return place


@pytest.fixture(scope="module")
def undisturbed(plan_of: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    run = RunRecord(tmp_path_factory.mktemp("runs") / "small")
    assert run_plan(plan_of(text=MENDED), run, device=torch.device("cpu"), roots=()) == Ran(2, ())
    return run


def told(said: pytest.WarningsRecorder) -> str:
    return "\n".join(str(warning.message) for warning in said)


def files_of(run: RunRecord) -> set[str]:
    return {path.relative_to(run.path).as_posix() for path in run.path.glob("cells/**/[!.]*") if path.is_file()}


def test_what_comes_back_is_the_record_of_a_run_here(
    plan_of: Callable[..., Any],
    undisturbed: RunRecord,
    tmp_path: Path,
    own_place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray, run, notes = StandInRay(1, 1), RunRecord(tmp_path / "small"), Notes()
    assert do_on(ray, plan_of(text=MENDED), run, monkeypatch, hooks=[notes]) == Ran(2, ())
    assert kept(run) == kept(undisturbed)
    assert files_of(run) == files_of(undisturbed)
    for path in run.path.glob("cells/**/[!.]*"):
        if path.is_file() and path.suffix != ".sha256":
            check_sum(path)
    # Told as it happens, the data put once, and nothing left behind.
    assert [name for name in notes.names() if name != "epoch"][:3] == ["run_begun", "cell_begun", "cell_ended"]
    assert len(notes.of("epoch")) == 2
    assert sum(isinstance(value, sent.Data) for value in ray.stored) == 1
    assert not list(own_place.iterdir())
    assert ray.killed == ray.actors


def test_a_worker_that_sees_the_folder_is_sent_no_files(
    plan_of: Callable[..., Any],
    undisturbed: RunRecord,
    tmp_path: Path,
    own_place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray, run = StandInRay(1), RunRecord(tmp_path / "small")
    assert do_on(ray, plan_of(text=MENDED), run, monkeypatch, shared=True) == Ran(2, ())
    assert kept(run) == kept(undisturbed)
    assert [type(value) for value in ray.stored] == [sent.Data]
    assert not list(run.path.glob(".shared*"))


def test_a_lost_worker_is_replaced_and_the_cell_goes_on_from_what_came_back(
    plan_of: Callable[..., Any],
    undisturbed: RunRecord,
    tmp_path: Path,
    own_place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[str] = []

    def lose(actor: int, method: str) -> bool:
        heard.append(method)
        if actor or heard.count("listen") != 1:  # once the first words of the first cell are here
            return False
        for thread in threading.enumerate():
            if "(_work)" in thread.name:
                thread.join()  # a node takes its work along; here it would draw from torch's generator beside the next
        return True

    ray, run, notes = StandInRay(1, lose=lose), RunRecord(tmp_path / "small"), Notes()
    with pytest.warns(UserWarning, match="given") as said:
        ran = do_on(ray, plan_of(text=MENDED), run, monkeypatch, hooks=[notes])
    assert re.search("worker on .* was lost: LostError: The node ran low .*; it is given to another", told(said))
    assert ran == Ran(2, ())
    assert kept(run) == kept(undisturbed)
    assert [cell.label for cell in notes.of("cell_begun")].count("Mended · seed 0 · before repair") == 2
    assert ray.actors == 2


def test_a_cell_whose_workers_are_lost_again_and_again_has_failed(
    plan_of: Callable[..., Any], tmp_path: Path, own_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray, run = StandInRay(1, lose=lambda actor, method: actor < 3 and method == "do"), RunRecord(tmp_path / "small")
    with pytest.warns(UserWarning, match="was lost"):
        ran = do_on(ray, plan_of(text=SMALL.replace("seeds: 1", "seeds: 2")), run, monkeypatch)
    (failure,) = ran.failures
    assert failure.message.endswith("was lost: LostError: The node ran low on memory. ... More lines. (tried 3 times)")
    failed = [cell for cell in plan_of(text=SMALL).cells() if cell.label == failure.label]
    assert run.cell(failed[0].fingerprint).failure() == failure.message
    assert ray.actors == 4


def test_workers_that_cannot_start_are_one_message(
    plan_of: Callable[..., Any], tmp_path: Path, own_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_EVERY", 0.0)
    ray = StandInRay(1, lose=lambda actor, method: True)
    with pytest.raises(RequestError, match=r"engine: no worker can be started .* Is bascule installed on every node\?"):
        do_on(ray, plan_of(text=SMALL), RunRecord(tmp_path / "small"), monkeypatch)
    assert ray.actors == 3


def test_a_head_that_is_gone_ends_the_run_and_the_same_command_continues(
    plan_of: Callable[..., Any],
    undisturbed: RunRecord,
    tmp_path: Path,
    own_place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before Ray ends the process itself."""
    ray, run, plan = StandInRay(1), RunRecord(tmp_path / "small"), plan_of(text=MENDED)

    class Leaves(Notes):
        def cell_ended(self, cell: CellFacts, end: CellEnd) -> None:
            ray.head.close()

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_EVERY", 0.0)
        patch.setattr(cluster, "_AWAY", 0.0)
        with (
            pytest.warns(UserWarning, match=r"the head of the Ray cluster \(127.*refused; it is waited for"),
            pytest.raises(
                RequestError,
                match=r"^engine: the head .* cannot be reached any more: .*refused\. What is finished is kept; the",
            ),
        ):
            do_on(ray, plan, run, patch, hooks=[Leaves()])
    assert len(list(run.path.glob("cells/*/model.safetensors"))) == 1
    assert do_on(StandInRay(1), plan, run, monkeypatch) == Ran(1, ())
    assert kept(run) == kept(undisturbed)


@pytest.mark.parametrize("address", ["", "auto"])
def test_a_head_whose_place_nobody_tells_is_not_looked_for(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller's own connection through Ray's client."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert cluster.Head(SimpleNamespace(get_runtime_context=object)).answers()


def test_a_head_by_the_newer_kind_of_address() -> None:
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no such addresses")
    with server:
        address = f"[::1]:{server.getsockname()[1]}"
        ray = SimpleNamespace(get_runtime_context=lambda: SimpleNamespace(gcs_address=address))
        assert cluster.Head(ray).answers()


@pytest.mark.skipif(os.name == "nt", reason="sends signals")
@pytest.mark.parametrize("when", ["meanwhile", "afterwards"])
def test_sigterm_stays_with_whoever_handles_it(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray ends a process with an exit code of its own."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def init(**_: object) -> None:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
        if when == "meanwhile":
            signal.raise_signal(signal.SIGTERM)

    def connected_and_stopped() -> None:
        cluster._connect(SimpleNamespace(init=init))
        signal.raise_signal(signal.SIGTERM)

    with stoppable() as came, pytest.raises(KeyboardInterrupt):
        connected_and_stopped()
    assert came == [signal.SIGTERM]


def test_what_others_print_leaves_standard_output_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.redirect_stdout(cluster._OfThisThread()):
        other = threading.Thread(target=print, args=("a node has gone",))
        other.start()
        other.join()
        sys.stdout.write("a hook's own\n")
    assert capsys.readouterr() == ("a hook's own\n", "a node has gone\n")


# --- full disks ------------------------------------------------------------------------------------------------------


def fill(monkeypatch: pytest.MonkeyPatch, full: Callable[[Path], bool]) -> None:
    """Where `full` says so, nothing can be written."""
    before, usage = os.fsync, shutil.disk_usage

    def fsync(file: int) -> None:
        if full(Path(f"/proc/self/fd/{file}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        before(file)

    def room(path: Path) -> Any:
        return SimpleNamespace(free=2**20) if full(Path(path)) else usage(path)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(ray_worker.shutil, "disk_usage", room)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks into /proc")
def test_a_full_disk_of_a_node_costs_a_try_and_no_cell(
    plan_of: Callable[..., Any],
    undisturbed: RunRecord,
    tmp_path: Path,
    own_place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, first = RunRecord(tmp_path / "small"), []

    def full(path: Path) -> bool:
        own = next((part for part in path.parts if part.startswith("bascule-worker-")), None)
        if own is not None and path.name.startswith(".model.safetensors"):
            first[:] = first or [own]
        return own in first

    fill(monkeypatch, full)
    with pytest.warns(UserWarning, match="given") as said:
        assert do_on(StandInRay(1, 1), plan_of(text=MENDED), run, monkeypatch) == Ran(2, ())
    assert re.search(
        r"the disk of its worker is full: .*: 1 MiB are free .*No space left.*; it is given to another", told(said)
    )
    assert first
    assert kept(run) == kept(undisturbed)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks into /proc")
def test_full_disks_everywhere_end_the_run(
    plan_of: Callable[..., Any], tmp_path: Path, own_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_EVERY", 0.0)
    fill(monkeypatch, lambda path: path.name.startswith("bascule-worker-"))
    ray = StandInRay(1, 1)
    with (
        pytest.warns(UserWarning, match="is full"),
        pytest.raises(OSError, match=r"the disk of every worker is full \(.*bascule-worker-.* on .*: 1 MiB are free"),
    ):
        do_on(ray, plan_of(text=SMALL), RunRecord(tmp_path / "small"), monkeypatch)
    assert ray.killed == ray.actors
    assert not list(own_place.iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks into /proc")
def test_a_full_disk_here_stops_the_run_and_the_same_command_continues(
    plan_of: Callable[..., Any],
    undisturbed: RunRecord,
    tmp_path: Path,
    own_place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, plan = RunRecord(tmp_path / "small"), plan_of(text=MENDED)
    with monkeypatch.context() as patch:
        fill(patch, lambda path: path.is_relative_to(run.path) and path.name.startswith(".model.safetensors"))
        with pytest.raises(OSError, match="No space left"):
            do_on(StandInRay(1), plan, run, patch)
    assert not list(run.path.glob("cells/*/model.safetensors"))
    assert not list(own_place.iterdir())
    do_on(StandInRay(1), plan, run, monkeypatch)
    assert kept(run) == kept(undisturbed)


def test_folders_of_killed_workers_are_removed_and_those_of_others_stay(
    own_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, new = own_place / "bascule-worker-left", own_place / "bascule-worker-new"
    for folder in (left, new):
        folder.mkdir()
    os.utime(left, (0, 0))
    with ray_worker.own_folder() as held:
        os.utime(held, (0, 0))
        with ray_worker.own_folder():
            assert {new, held} < set(own_place.iterdir())
    assert list(own_place.iterdir()) == [new]


# --- what is sent ----------------------------------------------------------------------------------------------------


def test_changes_come_in_the_order_of_writing_and_are_carried_out_whole(tmp_path: Path) -> None:
    here, there = CellRecord(tmp_path / "here"), CellRecord(tmp_path / "there")
    there.write_info({"seed": 1})
    mirror = Mirror(there.path)
    assert not mirror.changes()
    there.write_losses(1, np.arange(2), np.ones(2))
    there.write_curve([{"epoch": 1.0}])
    there.write_info({"seed": 2})
    changes = mirror.changes()
    assert [*changes.files] == ["cell.json", "losses/1.npz", "curve.jsonl"]
    changes.carry_out(here.path)
    assert (here.info()["seed"], here.curve()) == (2, [{"epoch": 1.0}])
    there.curve_file.unlink()
    mirror.changes().carry_out(here.path)
    assert sorted(path.name for path in here.path.iterdir()) == ["cell.json", "cell.json.sha256", "losses"]
    assert not mirror.changes()


def test_what_was_damaged_on_its_way_is_not_kept(tmp_path: Path) -> None:
    changes = Changes({"curve.jsonl": Kept(b"{}", "0" * 64)})
    with pytest.raises(DamagedError, match="damaged on its way"):
        changes.carry_out(tmp_path)
    assert not list(tmp_path.iterdir())


def test_others_need_no_checkpoint_and_no_losses(tmp_path: Path) -> None:
    record = CellRecord(tmp_path)
    record.write_info({"seed": 1})
    record.write_losses(1, np.arange(2), np.ones(2))
    record.checkpoint_file.write_bytes(b"half")
    assert [*needed(record).files] == ["cell.json"]
    assert {*whole(record.path).files} == {"cell.json", "checkpoint.pt", "losses/1.npz"}


@pytest.mark.parametrize("exact", [False, True])
def test_images_arrive_as_they_were(exact: bool) -> None:
    floats = torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2) / 24
    pixels: Any = Exact(floats) if exact else (floats * 255).to(torch.uint8)
    images = Images(pixels=pixels, labels=torch.tensor([1, 0]), ids=torch.tensor([7, 9]), classes=("a", "b"))
    arrays = sent._arrays(images)
    assert arrays is not None
    arrays.pixels.flags.writeable = False  # as in Ray's store
    again = arrays.images()
    everything = torch.arange(2)
    assert torch.equal(again.batch(everything), images.batch(everything))
    assert torch.equal(again.labels, images.labels)
    assert torch.equal(again.ids, images.ids)
    assert again.classes == images.classes
    assert torch.equal(again.at(everything).batch(everything), images.batch(everything))


def folder_of_pictures(place: Path, each: int) -> None:
    for split in ("train", "test"):
        for name in ("a", "b"):
            (place / split / name).mkdir(parents=True)
            for number in range(each):
                Image.new("RGB", (8, 8), (9, 100, number)).save(place / split / name / f"{number}.png")


def test_pictures_read_in_place_must_be_the_same_on_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, each in (("here", 2), ("same", 2), ("other", 3)):
        folder_of_pictures(tmp_path / name / "pictures", each)
    monkeypatch.setattr("bascule.data._streamed.IN_MEMORY", 0)
    source = Folder(path="pictures")
    data = sent.read_data(source, [tmp_path / "here"], 1e9)
    assert isinstance(data, sent.InPlace)
    reader = sent.SentReader()
    reader.learn({repr(source): data})
    assert len(reader.splits(source, [tmp_path / "same"]).train) == 4
    with pytest.raises(RequestError, match=r"data: the images of folder, which are decoded .* there are others"):
        reader.splits(source, [tmp_path / "other"])
    with pytest.raises(RequestError, match=r"must lie on every node .* they cannot be read: .*\$BASCULE_DATA"):
        reader.splits(source, [tmp_path / "none"])
