"""Generates README.md: a table of the lessons' ideas, each with its file in the code and its test.

`python -m tests.lessons.lesson_map` rewrites README.md.
"""

import ast
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LENS = ROOT / "tests" / "lens"
README = HERE / "README.md"
HEAD = """# The lessons, as tests

Every idea of the 3Blue1Brown lessons is a claim, and every claim is a test. A mistake in the file listed with an idea
makes its test fail; `python -m pytest -m campaign tests/lessons` checks that by breaking the files in a copy of the
repository. This page is generated from the tests by `python -m tests.lessons.lesson_map`.

| # | lesson | idea | file | test |
|---|---|---|---|---|
"""


class Lesson(NamedTuple):
    """A lesson's test: the lesson's number, its name, its file and its docstring."""

    number: int
    test: str
    file: Path
    docstring: str


class Break(NamedTuple):
    """An edit of one file that must make a test fail."""

    file: str
    old: str
    new: str

    def edited(self, root: Path = ROOT) -> str:
        """The file's text with the edit applied. Raises ValueError unless `old` occurs exactly once."""
        text = (root / self.file).read_text(encoding="utf-8")
        if text.count(self.old) != 1 or self.old == self.new:
            raise ValueError(f"{self.old!r} occurs {text.count(self.old)} times in {self.file}")
        return text.replace(self.old, self.new)


def lessons() -> list[Lesson]:
    """All tests named test_L<number>_ in tests/lessons and tests/lens, by number."""
    found = []
    for file in sorted(file for folder in (HERE, LENS) for file in folder.glob("test_*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and (name := re.match(r"test_L(\d+)_", node.name)):
                found.append(Lesson(int(name[1]), node.name, file, ast.get_docstring(node) or ""))
    return sorted(found, key=lambda lesson: lesson.number)


def breaks() -> dict[str, list[Break]]:
    """The breaks of each test by its name, from breaks*.toml: a single one is [name], several are [[name]].

    Raises ValueError for a test that has breaks in two files.
    """
    found: dict[str, list[Break]] = {}
    for file in sorted(HERE.glob("breaks*.toml")):
        for test, edits in tomllib.loads(file.read_text(encoding="utf-8")).items():
            if test in found:
                raise ValueError(f"{test} has breaks in two files")
            found[test] = [Break(**edit) for edit in (edits if isinstance(edits, list) else [edits])]
    return found


def table() -> str:
    """The text of README.md."""
    edits, rows = breaks(), []
    for number, test, file, docstring in lessons():
        lesson, _, idea = docstring.partition(": ")
        link = file.name if file.parent == HERE else f"../{file.relative_to(HERE.parent).as_posix()}"
        where = f"[`{edits[test][0].file}`](../../{edits[test][0].file})"
        rows.append(f"| L{number} | {lesson} | {idea} | {where} | [`{test}`]({link}) |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    README.write_text(table(), encoding="utf-8")
