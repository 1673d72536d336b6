"""The one step of the build that pyproject.toml cannot state: the wheel holds the assets.

In the repository `assets/` and the Spacefile lie beside the package; a wheel has only the package.
So a build copies them into it, and `fastllm.paths` finds them in either place.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("checkpoints", "articles", "recorded", "thumbnail.png")
"""What the package reads of `assets/`; the pictures of the documents stay behind."""


class BuildWithAssets(build_py):
    """Copies the package, then what it reads from beside it."""

    def run(self) -> None:
        """Builds into `build_lib`, which becomes the wheel."""
        super().run()
        if self.editable_mode:  # the package is used where it lies
            return
        package = Path(self.build_lib) / "fastllm"
        shutil.copy2("Spacefile", package / "Spacefile")
        for name in SHIPPED:
            source, place = Path("assets", name), package / "assets" / name
            if source.is_dir():
                shutil.copytree(source, place, dirs_exist_ok=True)
            else:
                shutil.copy2(source, place)


setup(cmdclass={"build_py": BuildWithAssets})
