"""Who may import whom, and what the wheel holds. Each check is also shown to fail, on a small wrong tree."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.support.imports import arrows, circles, imported, named, rooms, sources

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("autograd", "tinygpt")
PROGRAM = (*PACKAGES, "train.py")
GPU = ("autograd.cuda", "cupy", "cupyx", "cupy_backends")


# --- the rules ------------------------------------------------------------------------------------


def circles_of_modules(root):
    return circles(arrows(sources(root, *PROGRAM)))


def circles_of_rooms(root):
    """Circles between the files and folders that lie in the same folder, for every folder of the program."""
    modules = sources(root, *PROGRAM)
    graph = arrows(modules)
    folders = ["", *(module for module, path in modules.items() if path.name == "__init__.py")]
    return [circle for folder in folders for circle in circles(rooms(graph, folder))]


def forbidden_imports(root, places, forbidden):
    """["module imports name"] of what the files in places import from the forbidden packages or modules."""
    return [
        f"{module} imports {name}"
        for module, path in sources(root, *places).items()
        for name in sorted(imported(module, path))
        if any(f"{name}.".startswith(f"{other}.") for other in forbidden)
    ]


def engine_core(root):
    """Files of the engine that must not know of GPUs.

    That is all of it except autograd/cuda, `__init__.py`, which lets autograd/cuda register its forms of
    operations, and backend.py, which finds a GPU.
    """
    files = sources(root, "autograd").values()
    paths = [path.relative_to(root).as_posix() for path in files]
    exceptions = ("autograd/cuda/", "autograd/__init__.py", "autograd/backend.py")
    return [path for path in paths if not path.startswith(exceptions)]


def imports_of_tests(root):
    """["module imports test module"] below tests/. What tests share belongs in tests/support."""
    found = []
    for module, targets in arrows(sources(root, "tests")).items():
        tests = [target for target in targets if target.rpartition(".")[2].startswith(("test_", "conftest"))]
        found += [f"{module} imports {target}" for target in sorted(tests)]
    return found


def wheel_settings(root):
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def missing_from_wheel(root):
    """Files in the packages' folders that pyproject.toml would leave out of the wheel."""
    settings, missing = wheel_settings(root), []
    for path in sorted(file for package in PACKAGES for file in (root / package).rglob("*")):
        if path.is_dir() or "__pycache__" in path.parts or path.name.startswith("."):
            continue
        package = ".".join(path.parent.relative_to(root).parts)
        patterns = ["*.py", *settings["package-data"].get(package, [])]
        if package not in settings["packages"] or not any(fnmatch(path.name, each) for each in patterns):
            missing.append(str(path.relative_to(root)))
    return missing


# --- this repository ------------------------------------------------------------------------------


def assert_none(lines):
    assert len(lines) == 0, "\n".join(lines)


def test_no_module_imports_itself_through_others():
    found = circles_of_modules(ROOT)
    assert len(found) == 0, f"circles of imports:\n{named(found)}"


def test_no_folder_imports_itself_through_others():
    found = circles_of_rooms(ROOT)
    assert len(found) == 0, f"circles of imports between folders or files of a folder:\n{named(found)}"


def test_the_engine_knows_nothing_of_what_is_built_on_it():
    outside = ("tinygpt", "train", "tests", "benchmarks", "workbook")
    assert_none(forbidden_imports(ROOT, ["autograd"], outside))


def test_the_core_of_the_engine_knows_nothing_of_gpus():
    assert {"autograd/tensor.py", "autograd/optim.py", "autograd/ops/nn.py"} <= set(engine_core(ROOT))
    assert_none(forbidden_imports(ROOT, engine_core(ROOT), GPU))


def test_the_program_needs_neither_tests_nor_benchmarks_nor_notebooks():
    assert_none(forbidden_imports(ROOT, PROGRAM, ["tests", "benchmarks", "workbook"]))
    assert_none(forbidden_imports(ROOT, ["benchmarks"], ["tests"]))


def test_no_module_imports_a_test():
    assert_none(imports_of_tests(ROOT))


def test_the_wheel_holds_every_file_of_the_packages():
    assert_none(missing_from_wheel(ROOT))


def test_the_wheel_holds_no_other_packages():
    settings = wheel_settings(ROOT)
    folders = {path.parent.relative_to(ROOT) for path in sources(ROOT, *PACKAGES).values()}
    assert sorted(settings["packages"]) == sorted(".".join(folder.parts) for folder in folders)
    assert "py-modules" not in settings


# --- trees that are wrong -------------------------------------------------------------------------

SOUND = {  # file -> its source; the README's rule: train -> tinygpt -> autograd
    "autograd/__init__.py": "from autograd.tensor import Tensor\n"
    "from autograd.ops import *\n"
    "import autograd.cuda.ops",
    "autograd/tensor.py": "import numpy",
    "autograd/optim.py": "",
    "autograd/backend.py": "import cupy",
    "autograd/ops/__init__.py": "from autograd.ops.nn import gelu",
    "autograd/ops/nn.py": "from autograd.tensor import Tensor",
    "autograd/cuda/__init__.py": "",
    "autograd/cuda/ops.py": "from ..ops import nn\nimport cupy",
    "tinygpt/__init__.py": "from tinygpt.model import GPT",
    "tinygpt/config.py": "",
    "tinygpt/model.py": "import autograd as ag\nfrom tinygpt import config",
    "tinygpt/run/__init__.py": "",
    "tinygpt/run/files.py": "",
    "tinygpt/run/folder.py": "def plot():\n"
    "    from tinygpt.run import files\n"
    "    from tinygpt.config import UserError",
    "train.py": "from tinygpt.run.folder import open_run\nfrom tinygpt import GPT",
    "benchmarks/__init__.py": "import train",
    "tests/support/runs.py": "import train",
    "tests/test_train.py": "from tests.support import runs",
}


@pytest.fixture
def tree(tmp_path):
    """tree({file: more of its source}): the root of a sound tree with these lines added."""

    def write(added):
        for file in SOUND | added:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(f"{SOUND.get(file, '')}\n{added.get(file, '')}\n")
        return tmp_path

    return write


def test_a_sound_tree_passes(tree):
    root = tree({})
    assert circles_of_modules(root) == circles_of_rooms(root) == imports_of_tests(root) == []
    assert forbidden_imports(root, ["autograd"], ["tinygpt", "tests"]) == []
    assert forbidden_imports(root, engine_core(root), GPU) == []


IN_A_FUNCTION = "def late():\n    {}"


@pytest.mark.parametrize(
    ("added", "circle"),
    [
        # two files, at the top and inside a function
        ({"autograd/tensor.py": "import autograd.ops.nn"}, ["autograd.ops.nn", "autograd.tensor"]),
        (
            {"autograd/tensor.py": IN_A_FUNCTION.format("from autograd.ops.nn import gelu")},
            ["autograd.ops.nn", "autograd.tensor"],
        ),
        # through a package: by its name, by a name in it, and by the file of another folder
        ({"autograd/tensor.py": "import autograd as ag"}, ["autograd", "autograd.tensor"]),
        ({"autograd/tensor.py": "from . import Tensor"}, ["autograd", "autograd.tensor"]),
        ({"tinygpt/model.py": IN_A_FUNCTION.format("from tinygpt import GPT")}, ["tinygpt", "tinygpt.model"]),
        (
            {"autograd/tensor.py": "from autograd.ops import *"},
            ["autograd.ops", "autograd.ops.nn", "autograd.tensor"],
        ),
        # a file alone, and one that imports the loop
        ({"tinygpt/config.py": "from tinygpt import config"}, ["tinygpt.config"]),
        ({"tinygpt/run/files.py": "import train"}, ["tinygpt.run.files", "train", "tinygpt.run.folder"]),
    ],
)
def test_a_circle_of_modules_is_found_and_named(added, circle, tree):
    assert circles_of_modules(tree(added)) == [[*circle, circle[0]]]


def test_every_circle_is_counted(tree):
    added = {"autograd/tensor.py": "import autograd.ops.nn", "tinygpt/config.py": "import tinygpt.model"}
    found = circles_of_modules(tree(added))
    assert named(found).splitlines() == [
        "autograd.ops.nn -> autograd.tensor -> autograd.ops.nn",
        "tinygpt.config -> tinygpt.model -> tinygpt.config",
    ]


@pytest.mark.parametrize(
    ("added", "circle"),
    [
        # two folders, though no module reaches itself
        (
            {"autograd/ops/linalg.py": "import autograd.cuda.launch", "autograd/cuda/launch.py": ""},
            ["autograd.cuda", "autograd.ops"],
        ),
        # a file and a folder beside it
        ({"tinygpt/config.py": "from tinygpt.run import files"}, ["tinygpt.config", "tinygpt.run"]),
        # the packages at the root
        ({"autograd/optim.py": "import tinygpt.config"}, ["autograd", "tinygpt"]),
    ],
)
def test_a_circle_between_folders_is_found_and_named(added, circle, tree):
    root = tree(added)
    assert circles_of_modules(root) == []
    assert circles_of_rooms(root) == [[*circle, circle[0]]]


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("autograd/cuda/ops.py", "import tinygpt", "autograd.cuda.ops imports tinygpt"),
        ("autograd/optim.py", "from tests.support import runs", "autograd.optim imports tests.support.runs"),
        ("autograd/__init__.py", "import tests.support as own", "autograd imports tests.support"),
    ],
)
def test_a_forbidden_import_is_found(file, line, message, tree):
    for source in (line, IN_A_FUNCTION.format(line)):
        assert forbidden_imports(tree({file: source}), ["autograd"], ["tinygpt", "tests"]) == [message]


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("autograd/ops/nn.py", "from autograd import cuda", "autograd.ops.nn imports autograd.cuda"),
        ("autograd/ops/nn.py", "from ..cuda import ops", "autograd.ops.nn imports autograd.cuda.ops"),
        ("autograd/tensor.py", "import cupy as cp", "autograd.tensor imports cupy"),
        ("autograd/new.py", "from cupy import einsum", "autograd.new imports cupy.einsum"),
    ],
)
def test_a_gpu_in_the_core_is_found(file, line, message, tree):
    for source in (line, IN_A_FUNCTION.format(line)):
        root = tree({file: source})
        assert forbidden_imports(root, engine_core(root), GPU) == [message]


@pytest.mark.parametrize(
    "line",
    ["from tests.test_train import SMOKE", "from tests import test_train", "from .. import test_train"],
)
def test_an_import_of_a_test_is_found(line, tree):
    root = tree({"tests/support/runs.py": line})
    assert imports_of_tests(root) == ["tests.support.runs imports tests.test_train"]


def test_a_file_that_the_wheel_would_miss_is_found(tree):
    root = tree({"autograd/cuda/loss.cu": "", "autograd/py.typed": "", "tinygpt/text/data.py": ""})
    packages = sorted({str(Path(file).parent).replace("/", ".") for file in SOUND if "/__init__" in file})
    lists = f'[tool.setuptools]\npackages = {packages}\npackage-data = {{ autograd = ["py.typed"] }}\n'
    (root / "pyproject.toml").write_text(lists)
    assert missing_from_wheel(root) == ["autograd/cuda/loss.cu", "tinygpt/text/data.py"]
