"""Random streams are named by seed and purpose, the same everywhere, and leave torch's own stream alone."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest
import torch

from bascule.core import rng


def test_golden_seeds() -> None:
    # The first 8 bytes of `printf '0\x1finit' | sha256sum` and of `printf '7\x1fstep\x1f3' | sha256sum`, halved.
    assert rng.derive(0, "init") == 0x19AF614EF3B583AC >> 1
    assert rng.derive(7, "step", 3) == 0x23FF22BBA8B71585 >> 1


def test_every_seed_and_purpose_is_a_stream_of_its_own() -> None:
    purposes = [
        ("init",),
        ("order", 0),
        ("order", 1),
        ("order", 11),
        ("step", 0),
        ("step", 1),
        ("step1",),
        ("st", "ep"),
    ]
    seeds = [*range(20), 10**12]
    numbers = [rng.derive(seed, *purpose) for seed, purpose in itertools.product(seeds, purposes)]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number < 2**63 for number in numbers)
    draws = {tuple(torch.rand(2, generator=rng.stream(0, *purpose)).tolist()) for purpose in purposes}
    assert len(draws) == len(purposes)


def test_a_stream_starts_anew_each_time_it_is_asked_for() -> None:
    first, second = (torch.rand(5, generator=rng.stream(3, "poison")) for _ in range(2))
    assert torch.equal(first, second)


def test_another_process_draws_the_same() -> None:
    code = "import torch; from bascule.core import rng; print(torch.rand(3, generator=rng.stream(7, 'x', 2)).tolist())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
    )
    assert done.stdout.strip() == str(torch.rand(3, generator=rng.stream(7, "x", 2)).tolist())


def test_the_borrowed_stream_is_seeded_by_its_purpose() -> None:
    drawn = []
    for purpose in ("init", "init", "train"):
        with rng.borrowed_global_stream(5, purpose):
            drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[0], torch.rand(3, generator=rng.stream(5, "init")))


@pytest.mark.parametrize("fails", [False, True], ids=["success", "exception"])
def test_the_borrowed_stream_is_given_back(fails: bool) -> None:
    before = torch.random.get_rng_state()
    try:
        with rng.borrowed_global_stream(5, "init"):
            torch.rand(3)
            assert not torch.equal(torch.random.get_rng_state(), before)
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert torch.equal(torch.random.get_rng_state(), before)


def test_seeding_gives_the_stream_of_torchs_own() -> None:
    with rng.borrowed_global_stream(0, "x"):
        torch.manual_seed(2**62 + 7)
        wanted = torch.rand(5)
        rng.seed_global(2**62 + 7, torch.device("cpu"))
        assert torch.equal(torch.rand(5), wanted)
