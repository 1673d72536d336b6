"""The picture that moves: of what was filmed, at the pace at which it was."""

import io

import pytest
from PIL import Image

from fastllm.errors import SettingsError
from tools import moving_picture
from tools.moving_picture import animate


def frame(colour: str) -> bytes:
    into = io.BytesIO()
    Image.new("RGB", (40, 20), colour).save(into, "PNG")
    return into.getvalue()


def test_frames_stand_as_long_as_they_stood() -> None:
    shown = [(frame("red"), 0.1), (frame("red"), 0.2), (frame("blue"), 0.5)]
    picture = Image.open(io.BytesIO(animate(shown, 0.5)))
    assert picture.size == (20, 10)
    assert picture.info["loop"] == 0
    found = []
    for at in range(picture.n_frames):  # type: ignore[attr-defined]
        picture.seek(at)
        found.append((picture.info["duration"], picture.convert("RGB").getpixel((3, 3))))
    assert [duration for duration, _ in found] == [300, 500]
    assert found[0][1] != found[1][1]


def test_a_picture_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving_picture, "MOST_BYTES", 10)
    with pytest.raises(SettingsError, match="give fewer --seconds"):
        animate([(frame("red"), 1.0)], 1.0)
