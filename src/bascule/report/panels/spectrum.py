"""How the models' answers depend on spatial frequency."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from bascule.core import tiles
from bascule.report.drawing import svg
from bascule.report.drawing.picture import Picture
from bascule.report.evidence import Evidence, evidence
from bascule.report.view import RowView, View
from bascule.report.words import count

TITLE = "Frequencies"
PLACE = 120

_WIDTH, _HEIGHT = 400, 260
_MAP = 220
_CHARTS = 24
"""Most methods and groups of rows with pictures."""
_MAPS = 40
"""Rows whose Fourier map is shown."""
_MEANING = {
    "band-energy": ("Share of the gradient's energy, %", "Where the model is sensitive"),
    "pass-filter": ("Accuracy, %", "Accuracy on filtered images, by cutoff"),
    "fourier": ("Error, %", "Error rate under a wave of one frequency; the middle is frequency zero"),
}

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Response:
    """What a method says of a row."""

    row: RowView
    frequencies: Values
    mean: Values
    """Over the seeds."""
    low: Values
    high: Values
    """Of the seeds."""
    seeds: int


@dataclass(frozen=True)
class Map:
    """A Fourier map."""

    row: RowView
    picture: Picture
    seeds: str


@dataclass(frozen=True)
class Part:
    """What a method says of rows that can share a picture."""

    name: str
    about: str
    method: str
    """With its settings."""
    where: str
    rows: list[RowView]
    chart: svg.Drawing | None
    maps: list[Map]
    scale: tuple[str, str] | None
    """What the darkest and the brightest of the maps stand for."""
    middles: list[tuple[RowView, str]]
    """Mean frequency of the energy."""
    left: list[RowView]


def context(view: View) -> Mapping[str, Any] | None:
    """One part for each method and group of rows; nothing where there are no spectra."""
    groups: dict[tuple[str, str, str, str], list[tuple[Evidence, Response]]] = {}
    for part in evidence(view, "explain"):
        response = _response(part)
        if response is None:
            continue
        vary = json.dumps(part.row.result.vary, sort_keys=True)
        size = json.dumps(response.frequencies.tolist())
        groups.setdefault((part.method, part.row.result.data, vary, size), []).append((part, response))
    if not groups:
        return None
    together = len({key[1:3] for key in groups}) == 1
    return {"parts": [_part(place, group, alone=together) for place, group in enumerate(groups.values())]}


def _response(part: Evidence) -> Response | None:
    arrays = [
        finding.arrays for finding in part.models.values() if {"frequencies", "response"} <= finding.arrays.keys()
    ]
    if not arrays:
        return None
    frequencies = np.asarray(arrays[0]["frequencies"], dtype=np.float64)
    seeds = [
        np.asarray(parts["response"], dtype=np.float64)
        for parts in arrays
        if np.array_equal(parts["frequencies"], arrays[0]["frequencies"])
    ]
    stack = np.stack(seeds)
    known = np.isfinite(stack)
    if not known.any():
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, stack, 0).sum(0) / known.sum(0)
    low, high = np.where(known, stack, np.inf).min(0), np.where(known, stack, -np.inf).max(0)
    return Response(part.row, frequencies, mean, low, high, len(seeds))


def _part(place: int, group: Sequence[tuple[Evidence, Response]], *, alone: bool) -> Part:
    first, responses = group[0][0], [response for _, response in group]
    unit, about = _MEANING.get(first.name, ("Response, %", "Response by frequency"))
    flat = responses[0].frequencies.shape[1] == 1
    maps, scale = ([], None) if flat or place >= _CHARTS else _maps(place, responses[:_MAPS], about)
    middles = [(response.row, _middle(response)) for response in responses] if first.name == "band-energy" else []
    return Part(
        name=first.name,
        about=about,
        method=first.method,
        where="" if alone else first.row.where,
        rows=[response.row for response in responses],
        chart=_chart(place, responses, unit, about) if flat and place < _CHARTS else None,
        maps=maps,
        scale=scale,
        middles=middles,
        left=[response.row for response in responses[0 if place >= _CHARTS else len(responses) if flat else _MAPS :]],
    )


def _middle(response: Response) -> str:
    """Mean frequency, weighted by energy."""
    energy = np.nan_to_num(response.mean)
    return f"{float((energy * response.frequencies[:, 0]).sum() / (energy.sum() or 1)):.2f}"


def _chart(place: int, responses: Sequence[Response], unit: str, about: str) -> svg.Drawing:
    with svg.drawing():
        axes = svg.axes_of(_WIDTH, _HEIGHT, left=52, right=14, top=10, bottom=50)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("frequency, cycles per pixel", labelpad=8)
        axes.set_ylabel(unit, labelpad=8)
        for response in responses:
            order = np.argsort(response.frequencies[:, 0], kind="stable")
            order = order[np.isfinite(response.mean[order])]
            across, colour = response.frequencies[order, 0], response.row.mark.colour
            axes.fill_between(
                across, 100 * response.low[order], 100 * response.high[order], color=colour, alpha=0.16, linewidth=0
            )
            axes.plot(
                across, 100 * response.mean[order], color=colour, linewidth=1.5, marker=response.row.mark.shape,
                markersize=5, markeredgecolor=svg.INK, markeredgewidth=0.5, clip_on=False,
            )  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        return svg.svg(axes, name=f"spectrum-{place}", label=_spoken(responses, about))


def _spoken(responses: Sequence[Response], about: str) -> str:
    each = []
    for response in responses[:12]:
        most = int(np.nanargmax(response.mean))
        each.append(
            f"{response.row.name} most at {response.frequencies[most, 0]:.2g}, {100 * response.mean[most]:.1f} %"
        )
    rest = [f"and {count(len(responses) - 12, 'more row')}"] if len(responses) > 12 else []
    return f"{about}, by frequency in cycles per pixel: {'; '.join([*each, *rest])}."


def _maps(place: int, responses: Sequence[Response], about: str) -> tuple[list[Map], tuple[str, str]]:
    """Maps on one scale, from the lowest to the highest value in any of them."""
    least = min(float(np.nanmin(response.mean)) for response in responses)
    most = max(float(np.nanmax(response.mean)) for response in responses)
    maps = []
    for number, response in enumerate(responses):
        shares = (response.mean - least) / ((most - least) or 1.0)
        label = f"{about}: map of {response.row.name}"
        picture = Picture(_plane(response.frequencies, shares), f"spectrum-{place}-{number}", label, most=_MAP)
        maps.append(Map(response.row, picture, count(response.seeds, "seed")))
    return maps, (f"{100 * least:.0f} %", f"{100 * most:.0f} %")


def _plane(frequencies: Values, shares: Values) -> Image.Image:
    """The whole plane from one value for each pair of opposite frequencies; see-through where none was tried."""
    step = np.abs(frequencies[frequencies != 0]).min() if (frequencies != 0).any() else 1.0
    cycles = np.round(frequencies / step).astype(int)
    reach = np.abs(cycles).max(0)
    plane = np.full((2 * reach[0] + 1, 2 * reach[1] + 1), np.nan)
    highest = np.isclose(np.abs(frequencies), 0.5)  # there both signs are the same wave
    for down, across in ((1, 1), (-1, 1), (1, -1)):
        for sign in (1, -1):
            same = (highest[:, 0] | (down == 1)) & (highest[:, 1] | (across == 1))
            places = sign * cycles[same] * (down, across) + reach
            plane[places[:, 0], places[:, 1]] = shares[same]
    colours = matplotlib.colormaps[tiles.HEAT](np.nan_to_num(plane), bytes=True)
    colours[np.isnan(plane)] = 0
    return Image.fromarray(colours)
