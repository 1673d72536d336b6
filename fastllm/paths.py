"""Where things lie: what a clone has beside the package, and a wheel inside it.

A clone keeps `assets/` and the Spacefile at its top; the build of a wheel copies both into the
package (`setup.py`). So the package says by what it holds which of the two it is.
"""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
"""The package, in a clone or where it was installed."""

ROOT = PACKAGE.parent
"""A clone of the repository; for an installed package the folder it was installed into."""

_HOLDER = PACKAGE if (PACKAGE / "assets").is_dir() else ROOT

SPACEFILE = _HOLDER / "Spacefile"

ASSETS = _HOLDER / "assets"

CHECKPOINTS = ASSETS / "checkpoints"
"""The target and the drafters that ship, each in a folder of its name."""

ARTICLES = ASSETS / "articles"
"""The sample articles, a text file each."""

RECORDED = ASSETS / "recorded"
"""The races that the page shows of the samples."""

PAGE = PACKAGE / "demo"
"""The scripts of the page and its style: those of a fold in its folder, the others in `static`."""
