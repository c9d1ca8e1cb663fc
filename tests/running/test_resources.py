"""What a cell is given on a cluster: how it is asked for, and where there is room for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bascule
from bascule.cli.options import amounts_of
from bascule.core.errors import RequestError
from bascule.running.resources import Resources, resources_of

CORES = {"CPU": 4.0, "memory": 8.0 * 2**30, "node:10.0.0.1": 1.0, "object_store_memory": 1e9}
GPUS = {**CORES, "GPU": 2.0, "accelerator_type:A100": 1.0}


@pytest.mark.parametrize(
    ("given", "device", "meant", "places"),
    [
        (None, "auto", {"CPU": 1, "GPU": 1}, (0, 2)),
        (None, "cpu", {"CPU": 1}, (4, 4)),
        (None, "cuda", {"CPU": 1, "GPU": 1}, (0, 2)),
        ({"gpu": "0.2", "cpu": "0.5"}, "auto", {"CPU": 0.5, "GPU": 0.2}, (0, 8)),
        ({"gpu": 0.4, "cpu": 0.1}, "auto", {"CPU": 0.1, "GPU": 0.4}, (0, 4)),  # two on each, and not five on both
        ({"cpu": 2}, "cpu", {"CPU": 2}, (2, 2)),
        ({"Memory": "3GiB"}, "cpu", {"CPU": 1, "memory": 3 * 2**30}, (2, 2)),
        ({"accelerator_type:A100": 0.5}, "cpu", {"CPU": 1, "accelerator_type:A100": 0.5}, (0, 2)),
    ],
)  # fmt: skip
def test_what_is_asked_and_where_it_is(
    given: Any, device: str, meant: dict[str, float], places: tuple[int, int]
) -> None:
    wanted = resources_of(given, device).on([CORES, GPUS])
    assert wanted.named() == meant
    assert (wanted.places(CORES), wanted.places(GPUS)) == places
    assert wanted.device == ("cuda" if "GPU" in meant else "cpu")


def test_without_gpus_in_the_cluster_auto_is_the_cpu() -> None:
    assert Resources().on([CORES]).named() == {"CPU": 1}
    assert [Resources(cpu=cpu).threads for cpu in (0.2, 1, 3)] == [1, 1, 3]


def test_what_no_node_has_is_refused_with_what_there_is() -> None:
    with pytest.raises(RequestError) as refused:
        resources_of({"gpu": 1, "memory": "512MiB"}, "auto").on([CORES]).check({"first (ab12)": CORES})
    assert str(refused.value) == (
        "resources: no node of the cluster has cpu=1, gpu=1, memory=0.5GiB, and so no cell could ever start. There "
        "are: first (ab12): cpu=4, memory=8GiB"
    )


@pytest.mark.parametrize(
    ("given", "device", "problem"),
    [
        (None, "cuda:1", "device: with `engine` ray each cell takes the GPU that Ray gives it: auto, cpu or cuda; got"),
        ("gpu=1", "auto", "resources: expected such as cpu=2, gpu=0.2, memory=4GiB or a resource"),
        ({"gpu": 1.5}, "auto", "resources: gpu must be a number from 0.0001, of `gpu` a part of one or a whole number"),
        ({"cpu": "many"}, "auto", "resources: cpu must be a number from 0.0001; got 'many'"),
        ({"cpu": 0}, "auto", "resources: cpu must be a number from 0.0001; got 0"),
        ({"memory": "4"}, "auto", "resources: memory must be written with its unit, such as 512MiB"),
        ({"CPU": 1, "cpu": 1}, "auto", "each once; got 'cpu'"),
        ({"gpu": 1}, "cpu", "resources: a GPU is of no use with `device` cpu"),
    ],
)
def test_what_is_refused(given: Any, device: str, problem: str) -> None:
    with pytest.raises(RequestError) as refused:
        resources_of(given, device)
    assert problem in str(refused.value)


def test_how_the_option_is_written() -> None:
    assert amounts_of("gpu=0.2, memory=4GiB") == {"gpu": "0.2", "memory": "4GiB"}
    for text in ("", "gpu", "gpu=", "gpu=1,gpu=2", "=1"):
        with pytest.raises(RequestError, match="expected amounts by name, each once, such as"):
            amounts_of(text)


def test_only_with_ray_and_only_into_folders(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"^resources: only with `engine` ray"):
        bascule.run("digits", resources={"cpu": 1}, runs=tmp_path)
    for url in ("s3://bucket/runs", "memory://runs", "file:///runs"):
        with pytest.raises(RequestError, match=r"^runs: \w+:/+\w.* is a URL, and a record needs a folder"):
            bascule.run("digits", runs=url)
