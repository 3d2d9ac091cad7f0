"""The lessons' ideas in one table: where each lives in the code, and which test proves it.

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

Every idea of the 3Blue1Brown lessons is a claim, and every claim a test. The file that holds an idea is the one in
which a mistake turns its test red: `python -m pytest -m campaign tests/lessons` breaks each of them, in a copy, and
looks. This page is made from the tests by `python -m tests.lessons.lesson_map`.

| # | lesson | idea | file | test |
|---|---|---|---|---|
"""


class Lesson(NamedTuple):
    """A test, as its name and its docstring tell it."""

    number: int
    test: str
    file: Path
    docstring: str


class Break(NamedTuple):
    """An edit of one file that a test must notice."""

    file: str
    old: str
    new: str

    def edited(self, root: Path = ROOT) -> str:
        """The file's text with the mistake in it. Raises ValueError unless the edit fits in one place exactly."""
        text = (root / self.file).read_text(encoding="utf-8")
        if text.count(self.old) != 1 or self.old == self.new:
            raise ValueError(f"{self.old!r} occurs {text.count(self.old)} times in {self.file}")
        return text.replace(self.old, self.new)


def lessons() -> list[Lesson]:
    """All tests here and of the lens that are named after an idea, in the order of the ideas."""
    found = []
    for file in sorted(file for folder in (HERE, LENS) for file in folder.glob("test_*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and (name := re.match(r"test_L(\d+)_", node.name)):
                found.append(Lesson(int(name[1]), node.name, file, ast.get_docstring(node) or ""))
    return sorted(found, key=lambda lesson: lesson.number)


def breaks() -> dict[str, list[Break]]:
    """The breaks of each test by its name: one, [name], or where one is too few several, each under [[name]].

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
    """The whole page."""
    holds, rows = breaks(), []
    for number, test, file, docstring in lessons():
        lesson, _, idea = docstring.partition(": ")
        link = file.name if file.parent == HERE else f"../{file.relative_to(HERE.parent).as_posix()}"
        where = f"[`{holds[test][0].file}`](../../{holds[test][0].file})"
        rows.append(f"| L{number} | {lesson} | {idea} | {where} | [`{test}`]({link}) |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    README.write_text(table(), encoding="utf-8")
