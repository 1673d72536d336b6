"""Where things lie: the files that a clone has beside the package, and the page's own in it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""A clone of the repository."""

SPACEFILE = ROOT / "Spacefile"

ASSETS = ROOT / "assets"

CHECKPOINTS = ASSETS / "checkpoints"
"""The target and the drafters that ship, each in a folder of its name."""

ARTICLES = ASSETS / "articles"
"""The sample articles, a text file each."""

RECORDED = ASSETS / "recorded"
"""The race that the page opens with."""

PAGE = ROOT / "fastllm" / "demo"
"""The scripts of the page and its style: those of a fold in its folder, the others in `static`."""
