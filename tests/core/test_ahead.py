"""Pictures decoded before they are asked for: the same pixels, errors where they belong, an end at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from bascule.core.ahead import Ahead, Reading, read_batches, reading_as, threads
from bascule.core.batches import batches
from bascule.core.errors import RequestError
from bascule.core.images import Exact, Images
from bascule.core.inference import predict

COUNT, SIDE = 200, 4
PICTURE = 3 * SIDE * SIDE
PIXELS = torch.randint(0, 256, (COUNT, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Decoder:
    """Pictures decoded on demand; keeps which were, and by how many threads at most."""

    def __init__(self, pixels: Tensor = PIXELS, *, damaged: int = -1, seconds: float = 0.0) -> None:
        self.pixels, self.shape, self.damaged, self.seconds = pixels, pixels.shape, damaged, seconds
        self.seen: list[int] = []
        self.workers: set[str] = set()
        self.inner: set[int] = set()

    def __getitem__(self, index: Tensor, /) -> Tensor:
        self.workers.add(threading.current_thread().name)
        self.inner.add(threads())
        time.sleep(self.seconds)
        self.seen += index.tolist()
        if self.damaged in index.tolist():
            raise RequestError(f"picture {self.damaged}: damaged")
        return self.pixels[index]


def images(pixels: object = None) -> Images:
    pixels = PIXELS if pixels is None else pixels
    return Images(
        pixels=pixels,  # type: ignore[arg-type]
        labels=torch.arange(COUNT) % 3,
        ids=torch.arange(COUNT),
        classes=("a", "b", "c"),
    )


@pytest.fixture(params=[Reading(1, 0), Reading(1), Reading(3), Reading(2, 1)], ids=str)
def how(request: pytest.FixtureRequest) -> Iterator[Reading]:
    with reading_as(request.param):
        yield request.param


@pytest.mark.usefixtures("how")
def test_batches_are_those_of_a_set_in_memory() -> None:
    parts = torch.randperm(COUNT).split(37)
    replaced = torch.tensor([3, 50, 199])
    stored = torch.full((3, 3, SIDE, SIDE), 7, dtype=torch.uint8)
    for change in (
        lambda one: one,
        lambda one: one.with_replaced(replaced, stored, torch.zeros(3, dtype=torch.int64)),
        lambda one: one.with_replaced(replaced, stored, torch.zeros(3, dtype=torch.int64)).at(
            torch.arange(COUNT).flip(0)
        ),
    ):
        found = list(read_batches(change(images(Decoder())), parts))
        assert all(torch.equal(index, part) for (index, _), part in zip(found, parts, strict=True))
        assert all(torch.equal(x, change(images()).batch(index)) for index, x in found)


@pytest.mark.usefixtures("how")
def test_loops_and_predictions_draw_and_see_the_same() -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(PICTURE, 3))
    assert torch.equal(predict(net, images(Decoder()), batch_size=30), predict(net, images(), batch_size=30))

    def gone_through(pixels: object) -> list[Tensor]:
        generator, found = torch.Generator().manual_seed(1), []
        for x, y in batches(images(pixels), 64, steps=8, generator=generator):
            found += [x, y, torch.rand(1, generator=generator)]  # a loop may draw from the same stream
        return found

    assert all(torch.equal(a, b) for a, b in zip(gone_through(Decoder()), gone_through(None), strict=True))


def test_what_comes_next_is_decoded_meanwhile_as_far_as_there_is_room() -> None:
    decoder, parts = Decoder(), torch.arange(COUNT).split(10)
    with reading_as(Reading(2)), Ahead(images(decoder), lambda number: parts[number] if number < 20 else None) as ahead:
        ahead.batch(0, parts[0])
        until = time.monotonic() + 20
        while len(decoder.seen) < COUNT and time.monotonic() < until:
            time.sleep(0.01)
        assert sorted(decoder.seen) == list(range(COUNT))
    assert len(decoder.workers) <= 2
    assert decoder.inner == {1}  # no threads within threads


def test_no_more_waits_than_was_allowed() -> None:
    large = torch.zeros(1, 3, 300, 300, dtype=torch.uint8).expand(COUNT, -1, -1, -1)  # 270,000 bytes each
    for mib, waiting in ((0, 0), (1, 3), (2, 7)):
        decoder = Decoder(large)
        with reading_as(Reading(1, mib)):
            parts = torch.arange(COUNT).split(1)
            with Ahead(images(decoder), lambda number, parts=parts: parts[number]) as ahead:
                for number in range(5):
                    ahead.batch(number, parts[number])
                assert sum(decoding.nbytes for _, decoding in ahead._waiting) == waiting * 270_000
            assert set(decoder.seen) <= set(range(5 + waiting))


def test_a_damaged_picture_stops_its_own_batch() -> None:
    parts = torch.arange(COUNT).split(20)
    seen = []
    with reading_as(Reading(3)):
        given = read_batches(images(Decoder(damaged=70)), parts)
        for _ in range(3):
            seen += next(given)[0].tolist()
        with pytest.raises(RequestError, match="picture 70: damaged"):
            next(given)
    assert seen == list(range(60))


def test_whoever_stops_waits_for_nothing_that_was_not_begun() -> None:
    decoder = Decoder(seconds=0.05)
    with reading_as(Reading(2)):
        for _ in read_batches(images(decoder), torch.arange(COUNT).split(16)):
            break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    assert len(decoder.seen) < COUNT


def test_batches_out_of_order_are_decoded_all_the_same() -> None:
    parts = torch.arange(COUNT).split(50)
    with Ahead(images(Decoder()), lambda number: parts[number] if number < 4 else None) as ahead:
        for number in (2, 2, 0, 3, 1):
            assert torch.equal(ahead.batch(number, parts[number]), images().batch(parts[number]))


def test_nothing_is_read_ahead_of_what_is_in_memory() -> None:
    for pixels in (None, Exact(PIXELS / 255)):
        assert not images(pixels).is_decoded
        assert not images(pixels).at(torch.arange(7)).is_decoded
    assert images(Decoder()).at(torch.arange(7)).is_decoded
    for _ in read_batches(images(), torch.arange(COUNT).split(50)):
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_processes_share_the_cores_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bascule.core.ahead.available_cores", lambda: 8)
    assert Reading().threads == 8
    assert Reading().shared_by(3).threads == 2
    assert Reading().shared_by(20).threads == 1
    assert Reading(5).shared_by(3).threads == 5


@pytest.mark.parametrize(
    ("settings", "said"),
    [((0,), "workers: at least one thread that decodes; got 0"), ((None, -1), "read_ahead: MiB from 0 .*; got -1")],
)
def test_ways_to_read_that_cannot_be_are_refused(settings: tuple[int, ...], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        Reading(*settings)
