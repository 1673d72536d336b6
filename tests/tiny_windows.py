"""A folder of windows of made-up stories, as `write_windows` makes it; with a validation."""

from pathlib import Path

from fastllm.data.articles import split_sentences
from fastllm.pretrain.windows import Window, write_windows
from fastllm.vocabulary import Vocabulary


def write_tiny_windows(folder: Path, story: str, vocabulary: Vocabulary, count: int = 12) -> Path:
    """`count` stories, twice as long each, with a window of every kind.

    Args:
        folder: where to.
        story: of six sentences.
        vocabulary: that knows the story.
        count: stories to train on; half as many validate.
    """

    def articles(first: int, last: int) -> list[tuple[str, list[Window]]]:
        rows = []
        for index in range(first, last):
            text = " ".join([story.replace("eleven", str(index))] * 2)
            lead = split_sentences(text)[0]
            half, middle = len(text) // 2, len(story) + 1
            windows = [
                Window("whole", 0, len(text), lead),
                Window("start", 0, half, lead),
                Window("later", middle, len(text), lead),
                Window("short", 0, 200, lead[:40]),
            ]
            rows.append((text, windows))
        return rows

    settings = {"prefix": ". ", "text_length": 60}
    held_out = articles(count, count + count // 2)
    write_windows(folder / "validation", held_out, vocabulary, **settings)
    write_windows(folder, articles(0, count), vocabulary, **settings)
    return folder
