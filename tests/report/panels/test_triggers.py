"""What triggers look like, and how many images carry them."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pages import page_of, pages_of
from records import PAIR, POISON, Spec, sheet


def test_a_trigger_is_shown_once(tmp_path: Path) -> None:
    page = page_of(tmp_path, *PAIR, Spec("Clean", poison=None))
    (image,) = page.all("img")
    assert "same images with the trigger" in image["alt"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))))
    assert pixels.shape == (17, 26, 4)  # three images of 8 x 8 above three, with gaps of one pixel
    assert pixels[16, 7].tolist() == [255, 255, 255, 255]
    assert pixels[7, 7].tolist() == [0, 0, 0, 255]
    assert pixels[8, :, 3].max() == 0
    assert (image["width"], image["height"]) == ("546", "357")
    section = page.section("triggers")
    assert "grey image" not in section
    assert "sticker: size 2, position bottom-right" in section
    assert "A square patch pasted over the image." in section
    assert (
        "None, Adv. training: planted in 72 of 1,437 training images (5.0 %), all of class 7 and still labelled so "
        "(clean-label)." in section
    )
    assert "No poison is planted in: Clean." in section


def test_photographs_are_followed_by_a_grey_image(tmp_path: Path) -> None:
    clean = np.random.default_rng(0).integers(0, 200, (8, 24, 3), dtype=np.uint8)
    faint = clean.copy()
    faint[2:6] += 40
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate([clean, faint])).save(buffer, format="PNG")
    info = {"data": {"train": 1437, "test": 200, "size": [3, 8, 8], "classes": list("0123456789")}}
    opened: list[object] = []
    real = Image.open
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "open", lambda *a, **k: [opened.append(a), real(*a, **k)][1])
        page = page_of(tmp_path, Spec(picture=buffer.getvalue(), info=info))
    assert len(opened) == 1
    (image,) = page.all("img")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))))
    assert pixels.shape == (17, 35, 4)  # four images of 8 x 8 above four
    assert (pixels[:8, 27:, :3] == 128).all()
    assert (pixels[11:15, 27:, :3] == 168).all()
    assert (pixels[15:, 27:, :3] == 128).all()
    assert image["alt"].endswith("; last a grey image")
    assert "Last: what the trigger makes of a grey image." in page.section("triggers")


def test_different_triggers_are_shown_apart(tmp_path: Path) -> None:
    tested = {**POISON, "label": "dirty", "test_trigger": {"name": "sticker", "size": 4}}
    page = page_of(tmp_path, Spec(), Spec("Big", poison=tested, picture=sheet(128)))
    assert len(page.all("img")) == 2
    section = page.section("triggers")
    assert "sticker: size 2, position bottom-right; on test images sticker: size 4" in section
    assert "all of other classes and relabelled as class 7 (dirty-label)" in section


def test_rows_without_a_picture_yet_join_those_with_the_same_trigger(tmp_path: Path) -> None:
    page = page_of(tmp_path, Spec("Later", accuracy=None), Spec())
    section = page.section("triggers")
    assert len(page.all("figure", **{"class": "trigger"})) == len(page.all("img")) == 1
    assert "Later: to be planted in 5 % of the training set" in section
    assert "None: planted in 72 of 1,437" in section


def test_class_names_are_told(tmp_path: Path) -> None:
    classes = [f"<{name}>" for name in "abcdefghij"]
    info = {"data": {"train": 1437, "test": 200, "size": [1, 8, 8], "classes": classes}}
    assert "all of class 7 (<h>)" in page_of(tmp_path, Spec(info=info)).section("triggers")


@pytest.mark.parametrize("picture", [None, b"<svg onload=alert(1)>", sheet()[:40]])
def test_a_trigger_without_a_picture_is_described(tmp_path: Path, picture: bytes | None) -> None:
    page = page_of(tmp_path, Spec(picture=picture))
    assert page.all("img") == []
    assert "There is no picture of this trigger yet." in page.section("triggers")


def test_a_control_that_plants_nothing_says_so(tmp_path: Path) -> None:
    page = page_of(tmp_path, Spec(poison={**POISON, "rate": 0.0}, info={"poisoned": 0}))
    assert "planted in none of the 1,437 training images: a control" in page.section("triggers")


def test_the_same_models_in_two_runs_are_shown_for_both(tmp_path: Path) -> None:
    page = pages_of(tmp_path, {"a": PAIR, "b": PAIR})
    section = page.section("triggers")
    assert "None · a, Adv. training · a, None · b, Adv. training · b: planted in 72 of 1,437" in section
    assert len(page.text("figcaption")) == 2 + 4  # trade-off, trigger, and a curve for each row
