"""Every lesson's test has a one-sentence docstring and a break, and the generated table is current."""

import ast
import re
from collections import Counter

import pytest

from tests.lessons.lesson_map import README, breaks, lessons, table

NAMES = {
    "But what is a neural network?", "Gradient descent", "Analysing the network", "Backpropagation",
    "Backpropagation calculus", "Techniques for training", "What is a GPT?", "Attention, step by step",
    "How LLMs store facts", "Life of a model",
}  # fmt: skip


def test_the_table_is_current():
    assert README.read_text(encoding="utf-8") == table(), "regenerate it: python -m tests.lessons.lesson_map"


def test_every_test_has_a_break_and_every_break_a_test():
    assert Counter(lesson.test for lesson in lessons()) == Counter(breaks().keys())


@pytest.mark.parametrize("lesson", lessons(), ids=lambda lesson: lesson.test)
def test_every_idea_is_told_in_one_sentence(lesson):
    name, colon, idea = lesson.docstring.partition(": ")
    assert name in NAMES and colon and len(lesson.docstring) <= 110
    assert re.fullmatch(r"[^\n|]+[^.!?][.]", idea) and not re.search(r"[.!?] [A-Z]", idea)


@pytest.mark.parametrize("test", breaks())
def test_every_break_fits_one_place_and_leaves_valid_python(test):
    for mistake in breaks()[test]:
        ast.parse(mistake.edited())
