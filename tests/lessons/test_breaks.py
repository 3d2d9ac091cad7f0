"""Each lesson's test fails when its idea is broken: one mistake at a time, in a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lessons.lesson_map import ROOT, breaks, lessons

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(900)]
SECONDS = 300  # before a run of pytest counts as stuck

NOT_SOURCE = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "runs", "files")


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's source files, to be broken."""
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("broken") / "copy", ignore=NOT_SOURCE)


def run_pytest(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and last line of pytest in that folder.

    It runs without bytecode, since a file that is edited twice in a second may have an outdated one.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=120", *arguments]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS)
    return result.returncode, (result.stdout.strip().splitlines() or [result.stderr])[-1]


def test_unbroken_all_is_well(copy):
    files = sorted({lesson.file.relative_to(ROOT).as_posix() for lesson in lessons()})
    code, summary = run_pytest(copy, *files)
    assert code == 0, summary


MISTAKES = [(lesson, mistake) for lesson in lessons() for mistake in breaks()[lesson.test]]


@pytest.mark.parametrize(("lesson", "mistake"), MISTAKES, ids=[lesson.test for lesson, _ in MISTAKES])
def test_a_mistake_is_noticed(copy, lesson, mistake):
    file = copy / mistake.file
    whole = file.read_bytes()
    file.write_text(mistake.edited(copy), encoding="utf-8")
    try:
        code, summary = run_pytest(copy, f"{lesson.file.relative_to(ROOT).as_posix()}::{lesson.test}")
    finally:
        file.write_bytes(whole)
    assert code == 1 and re.search(r"\bfailed\b", summary) and not re.search(r"\berrors?\b", summary), summary
