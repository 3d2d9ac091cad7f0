"""make gpu: what one file says of the tests and benchmarks on a GPU, and that a failure never replaces it."""

import json
import sys

import pytest
import torch

from benchmarks import gpu
from configs.errors import UserError

REPORT = """<testsuites><testsuite name="pytest" tests="4">
<testcase classname="tests.test_cuda" name="test_good[as it is]" time="1.5"/>
<testcase classname="tests.test_cuda" name="test_bad" time="0.25">
  <failure message="assert 1 == 2&#10;more lines">the traceback</failure></testcase>
<testcase classname="tests.test_cuda" name="test_broken"><error message="failed on setup">...</error></testcase>
<testcase classname="tests.test_cuda" name="test_skipped"><skipped message="no NVIDIA GPU"/></testcase>
</testsuite></testsuites>"""


def test_each_test_has_its_outcome_and_the_first_line_of_why():
    assert gpu.outcomes(REPORT) == [
        {"test": "test_good[as it is]", "outcome": "passed", "seconds": 1.5},
        {"test": "test_bad", "outcome": "failure", "seconds": 0.25, "why": "assert 1 == 2"},
        {"test": "test_broken", "outcome": "error", "seconds": 0.0, "why": "failed on setup"},
        {"test": "test_skipped", "outcome": "skipped", "seconds": 0.0, "why": "no NVIDIA GPU"},
    ]


PASSED = {"test": "a", "outcome": "passed", "seconds": 1.0}
ROW = {"row": {"tokens_per_second": 5}, "seconds": 2.0}


@pytest.mark.parametrize(
    ("tests", "row", "failures"),
    [
        ([PASSED], ROW, []),
        ([PASSED, PASSED | {"outcome": "failure", "why": "1 == 2"}], ROW, ["a: 1 == 2"]),
        ([PASSED], {"failed": "ValueError: x"}, ["growth: ValueError: x"]),
        ([], ROW, ["no test is marked cuda"]),
    ],
)
def test_results_of_a_failure_lie_beside_the_good_ones(tmp_path, tests, row, failures):
    out = tmp_path / "gpu.json"
    out.write_text("the good ones")
    result = {"tests": tests, "benchmarks": {"growth": row}}
    assert gpu.failures(result) == failures
    written = gpu.write(result, out)
    assert json.loads(written.read_text()) == result
    assert written == (tmp_path / "gpu.failed.json" if failures else out)
    assert (out.read_text() == "the good ones") == bool(failures)


def test_a_benchmark_that_fails_is_named_and_the_others_are_measured(monkeypatch, workplace):
    def breaks(device: str, sizes: gpu.Sizes) -> gpu.Row:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gpu, "BENCHMARKS", {"bad": breaks, "good": lambda device, sizes: {"device": device}})
    found = gpu.measure_all("cpu", gpu.TRIAL, began=0)
    assert found["bad"] == {"failed": "RuntimeError: out of memory"} and found["good"]["row"] == {"device": "cpu"}


def test_no_benchmark_begins_that_four_minutes_have_no_room_for(monkeypatch):
    monkeypatch.setattr(gpu.time, "monotonic", lambda: gpu.LATEST + 1)
    found = gpu.measure_all("cuda", gpu.TRIAL, began=0)
    assert found.keys() == gpu.BENCHMARKS.keys() and all("not started" in row["failed"] for row in found.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has an NVIDIA GPU")
@pytest.mark.parametrize(("words", "says"), [([], "no NVIDIA GPU"), (["--device", "cpu"], "with --out")])
def test_without_a_gpu_nothing_is_measured_and_one_line_says_why(monkeypatch, words, says):
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    with pytest.raises(UserError, match=says) as caught:
        gpu.main()
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)
