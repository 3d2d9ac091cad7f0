"""What all tests share: shapes are checked while they run, every run happens in a folder of its own, and nothing
reaches the network or a file from outside, but for tests marked `data`, which get PELLUCID_DATA.
"""

import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

import tests.shapes  # noqa: F401 - the hook below finds it as an attribute
from tests.needs import without_data

ROOT = Path(__file__).resolve().parents[1]
OFFLINE = str(ROOT / "tests" / "offline")
if OFFLINE not in os.environ.get("PYTHONPATH", "").split(os.pathsep):  # for the processes that tests start
    os.environ["PYTHONPATH"] = os.pathsep.join([OFFLINE, *filter(None, [os.environ.get("PYTHONPATH")])])
if OFFLINE not in sys.path:
    sys.path.append(OFFLINE)
importlib.import_module("no_network")  # from now on, so that no import of a test's uses it either

DATA = Path(os.environ["PELLUCID_DATA"]).resolve() if os.environ.get("PELLUCID_DATA") else None
HOOK = install_import_hook(["model", "data", "training", "lens"], "tests.shapes.check")

settings.register_profile("thousand", max_examples=1000)  # pytest --hypothesis-profile=thousand

if TYPE_CHECKING:
    from data.bpe import BPETokenizer
    from data.text import Text
    from data.tokenizer import Tokenizer

TINY = """
[model]
kind = "gpt"
n_layer = 2
n_head = 2
n_embd = 16
context_length = 16
[data]
path = "poem.txt"
[train]
steps = 12
batch_size = 4
eval_every = 4
threads = 1
[log]
every = 1
sample_tokens = 8
"""

Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True, scope="session")
def files_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Instead of data/files there is an empty temporary folder, for downloads and for prepared tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data.prepare.TOKENS", tmp_path_factory.mktemp("tokens"))
        for module in ("fetch", "bpe"):
            patch.setattr(f"data.{module}.FILES", tmp_path_factory.mktemp("files"))
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Only a test marked `data` sees PELLUCID_DATA; for all others, and their fixtures, it is a newcomer's machine."""
    variables = {"PELLUCID_DATA": DATA, "TIKTOKEN_CACHE_DIR": DATA and DATA / "tiktoken"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, str(value))
            if value is None or not item.get_closest_marker("data"):
                patch.delenv(name)
        return (yield)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in: `runs/` appears there, and relative paths begin there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shell(workplace: Path, capfd: pytest.CaptureFixture[str]) -> Shell:
    """Run one of the scripts as a command line would, in this process; returns exit code, stdout, stderr."""
    import explore
    import export
    import sample
    import train
    from configs.errors import answer
    from lens.request import understand as understand_looking
    from training.request import understand as understand_sampling
    from training.run import understand as understand_training

    scripts = {
        "train.py": lambda words: train.main(understand_training(words)),
        "sample.py": lambda words: sample.main(understand_sampling(words)),
        "explore.py": lambda words: explore.main(understand_looking(words)),
        "export.py": lambda words: export.main(export.understand(words)),
    }

    def run(script: str, *words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            code = answer(lambda: scripts[script]([str(word) for word in words]))
        except SystemExit as end:  # after --help and --list
            code = int(end.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return run


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests that lack a GPU or data, saying so, and leave campaigns out unless -m names them."""
    import torch

    skips = {"cuda": None if torch.cuda.is_available() else "no NVIDIA GPU on this machine", "data": without_data(DATA)}
    for item in items:
        for marker, reason in skips.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
    if "campaign" not in config.option.markexpr:
        campaigns = [item for item in items if item.get_closest_marker("campaign")]
        config.hook.pytest_deselected(items=campaigns)
        items[:] = [item for item in items if not item.get_closest_marker("campaign")]


POEM = "The quick brown fox jumps over the lazy dog.\nPack my box with five dozen liquor jugs.\n" * 40


@pytest.fixture
def poem(workplace: Path) -> Path:
    """A short text file."""
    file = workplace / "poem.txt"
    file.write_text(POEM)
    return file


@pytest.fixture
def tiny(poem: Path) -> list[str]:
    """The words that train a very small GPT on the poem in about a second."""
    file = poem.with_name("tiny.toml")
    file.write_text(TINY)
    return ["tiny.toml"]


@pytest.fixture
def without(monkeypatch):
    """Make imports of a package fail as if it weren't installed."""

    def block(*packages: str) -> None:
        for package in packages:
            for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
                monkeypatch.delitem(sys.modules, name)
            monkeypatch.setitem(sys.modules, package, None)

    return block


def data_folder() -> Path:
    """PELLUCID_DATA, which has all files of `tests.needs.OUTSIDE`; the calling test must be marked `data`."""
    folder = os.environ.get("PELLUCID_DATA")
    if not folder:
        pytest.fail("a test that needs files from outside must be marked: @pytest.mark.data")
    return Path(folder)


def gpt2_vocabulary() -> "BPETokenizer":
    """GPT-2's own vocabulary; the calling test must be marked `data`."""
    data_folder()
    return read_gpt2_vocabulary()


@cache
def read_gpt2_vocabulary() -> "BPETokenizer":
    from data.bpe import gpt2_tokenizer

    return gpt2_tokenizer()


def text_of(documents: list[str], tokenizer: "Tokenizer", context_length: int, seed: int = 0) -> "Text":
    """A training split of these documents."""
    from configs.schema import DataConfig
    from data.text import open_text

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "documents.jsonl"
        file.write_text("\n".join(json.dumps({"text": text}) for text in documents))
        return open_text(DataConfig(path=str(file), val_fraction=0), context_length, seed, tokenizer)


@pytest.fixture
def torch_s_polynomial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Muon makes its steps orthogonal as torch.optim.Muon does: five times the same polynomial (Jordan et al. 2024)."""
    monkeypatch.setattr("training.muon.POLYNOMIALS", 5 * [(3.4445, -4.775, 2.0315)])
