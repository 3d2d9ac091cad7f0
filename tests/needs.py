"""What a test may need that is not in the repository: dev packages, a browser, files from outside.

On a developer's machine a test that lacks one is skipped and says what is missing. With CI set, as `.ci/run` and most
CI services do, packages and browser must have been installed, so there it fails; so it does for data that
PELLUCID_DATA should have had.
"""

import importlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

OUTSIDE = (
    "tinyshakespeare.txt",
    "MNIST/raw/train-images-idx3-ubyte",
    "MNIST/raw/train-labels-idx1-ubyte",
    "MNIST/raw/t10k-images-idx3-ubyte",
    "MNIST/raw/t10k-labels-idx1-ubyte",
    "tiktoken/6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",  # GPT-2's vocabulary: tiktoken names a copy by the
    "tiktoken/6d1cbeee0f20b3d9449abfede4726ed8212e3aee",  # SHA-1 of its address
)


def in_ci() -> bool:
    """Whether everything that can be installed must be there."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def require(package: str) -> Any:
    """The module of a dev package. Without it the calling test, or file of tests, is skipped; in CI it fails."""
    if in_ci():
        return importlib.import_module(package)
    return pytest.importorskip(package, exc_type=ImportError)


def chromium() -> str:
    """The path of the browser. Without one the calling test is skipped; in CI it fails."""
    found = shutil.which("chromium")
    if found is None:
        unavailable = pytest.fail if in_ci() else pytest.skip
        unavailable("chromium is not installed; on Debian: apt install chromium")
    return found


def without_data(folder: Path | None) -> str | None:
    """Why tests marked `data` cannot run with this PELLUCID_DATA; None if they can.

    Raises pytest.UsageError in CI if a folder is named and a file is missing in it.
    """
    if folder is None:
        return "PELLUCID_DATA is not set; it names a folder with tinyshakespeare.txt, MNIST/raw and tiktoken"
    missing = [name for name in OUTSIDE if not (folder / name).is_file()]
    if missing and in_ci():
        raise pytest.UsageError(f"PELLUCID_DATA={folder} has no {', '.join(missing)}")
    return f"PELLUCID_DATA={folder} has no {', '.join(missing)}" if missing else None
