"""The layout as it is drawn: what may import what, what may never be called, and how small the core stays."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

ROOMS = ("configs", "data", "lens", "model", "training")
SCRIPTS = ("train.py", "sample.py", "export.py", "explore.py")
MAY_IMPORT = {  # besides itself
    "configs": set(),
    "data": {"configs"},
    "model": {"configs"},
    "training": {"configs", "data", "model"},
    "lens": {"configs", "data", "model", "training"},
}
SHOW = {"views", "figures", "request.py"}  # what in lens meets runs or paints; the rest is tensors alone
PRODUCT = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")) + [ROOT / name for name in SCRIPTS]


def imports(path: Path) -> set[str]:
    """The top-level names that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(str(node.module).partition(".")[0])
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room):
    for path in (ROOT / room).rglob("*.py"):
        inside = imports(path) & {*ROOMS, "train", "sample", "export", "explore", "tests"}
        assert inside <= MAY_IMPORT[room] | {room}, path


def test_the_lens_computes_without_a_run_and_without_a_picture():
    for path in (ROOT / "lens").rglob("*.py"):
        if not SHOW & {*path.relative_to(ROOT / "lens").parts}:
            assert not imports(path) & {"training"}, path
        if "figures" not in path.parts and path.name != "paint.py":
            drawn = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
            names = {getattr(node, "module", None) or node.names[0].name for node in drawn}
            assert not any(name.startswith(("matplotlib", "lens.figures", "lens.paint")) for name in names), path


def test_a_look_is_understood_before_torch_is_loaded():
    code = "import sys, explore, lens.request; assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_schema_stands_on_pydantic_alone():
    assert imports(ROOT / "configs/schema.py") <= {"pydantic", "pydantic_core", "typing"}
    code = "import sys, configs.schema; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def called(node: ast.AST) -> str:
    """The dotted name of what a call calls, as far as it is one."""
    if isinstance(node, ast.Attribute):
        return f"{called(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_no_file_can_run_code():
    unsafe = {"torch.load", "torch.save", "exec", "eval", "yaml.load", "__import__", "importlib.import_module"}
    for path in PRODUCT:
        tree = ast.parse(path.read_text())
        assert not imports(path) & {"pickle", "dill", "joblib", "shelve", "marshal", "yaml"}, path
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                assert called(node.func) not in unsafe, f"{path}:{node.lineno}"
                for keyword in node.keywords:
                    assert keyword.arg not in ("shell", "trust_remote_code"), f"{path}:{node.lineno}"


def test_no_file_hides_a_module_of_the_standard_library():
    assert not {path.stem for path in PRODUCT} & sys.stdlib_module_names - {"__init__"}


def length(*names: str) -> int:
    """Lines of these files, all of them."""
    return sum(len((ROOT / name).read_text().splitlines()) for name in names)


def test_learning_fits_on_a_screen():
    core = ("model/mlp.py", "model/attention.py", "model/gpt.py", "training/loss.py", "training/optim.py", "train.py")
    assert length("train.py") <= 120
    assert length(*core) <= 600


def test_a_text_run_imports_nothing_of_digits():
    code = "import sys, train; from data import text; assert 'model.gpt' in sys.modules; "
    code += "assert 'data.digits' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
