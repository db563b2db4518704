"""The texts for readers: their links and paths lead somewhere, and their examples run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.operations import BUGS, KERNEL_BUGS

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ["README.md", "CONTRIBUTING.md", "benchmarks/README.md", "tests/README.md"]
SUFFIX = re.compile(r".\.(py|cu|md|toml|json|png)$")  # of a path without a slash
NOT_HERE = ("runs/", ".venv/", "results/gpu.")  # made by a command
PLACEHOLDER = re.compile(r"\b(NAME|FAMILY|FOLDER|FILE)\b")
IN_A_RUN = {"config.toml", "config.json", "tokenizer.json", "loss.png"}


def read(text):
    return (ROOT / text).read_text(encoding="utf-8")


def anchors(markdown):
    """The anchors of a text's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def broken_links(folder, markdown):
    """The relative links that lead to no file, or to no heading of it."""

    def leads_somewhere(link):
        path, _, anchor = link.partition("#")
        target = folder / path
        if path and not target.exists():
            return False
        return not anchor or anchor in anchors(target.read_text(encoding="utf-8") if path else markdown)

    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", markdown) if "://" not in link]
    return [link for link in links if not leads_somewhere(link)]


def paths(markdown):
    """The paths that a text names in backticks or in the commands of a shell."""
    shell = re.findall(r"^```sh\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    commands = [line.partition("#")[0] for block in shell for line in block.splitlines()]
    words = [word for code in [*re.findall(r"`([^`]+)`", prose), *commands] for word in code.split()]
    found = [word for word in words if re.fullmatch(r"[\w.*-]*(/[\w.*-]*)*", word)]
    return [word for word in found if re.search(r"\w/", word) or SUFFIX.search(word)]


def missing_paths(folder, markdown):
    """The paths that are found neither from the text's own folder nor from the root."""
    missing = []
    for path in paths(markdown):
        if path.startswith(NOT_HERE) or PLACEHOLDER.search(path) or path in IN_A_RUN:
            continue
        if not any(list(start.glob(path.rstrip("/"))) for start in (folder, ROOT)):
            missing.append(path)
    return missing


def python_blocks(markdown):
    return re.findall(r"^```python\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)


def missing_modules(markdown):
    """The benchmarks named as `python -m benchmarks.NAME` that do not exist."""
    names = set(re.findall(r"-m benchmarks\.(\w+)", markdown)) - {"NAME"}
    return [name for name in names if not (ROOT / "benchmarks" / f"{name}.py").exists()]


@pytest.mark.parametrize("text", TEXTS)
def test_links_and_paths_exist(text):
    folder, markdown = (ROOT / text).parent, read(text)
    assert broken_links(folder, markdown) == []
    assert missing_paths(folder, markdown) == []
    assert missing_modules(markdown) == []


def test_what_leads_nowhere_is_found():
    markdown = (
        "[a](train.py) [b](gone.py) [c](README.md#map-of-the-code) [d](README.md#gone) `autograd/*.cu`\n"
    )
    markdown += "`tinygpt/model.py`, `tinygpt/gone/`, `runs/NAME/`, `tests/operations/FAMILY.py`, `x / y`\n"
    markdown += "```sh\npython train.py && python gone.py  # see `this.py`\npython -m benchmarks.gone\n```\n"
    assert broken_links(ROOT, markdown) == ["gone.py", "README.md#gone"]
    assert missing_paths(ROOT, markdown) == ["autograd/*.cu", "tinygpt/gone/", "gone.py"]
    assert missing_modules(markdown) == ["gone"]


def test_the_example_of_the_readme_runs(capsys):
    (example,) = python_blocks(read("README.md"))
    exec(example, {})
    printed = re.findall(r"^print\(.*\)  # (.*)$", example, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == printed


def test_the_operation_of_contributing_passes_its_tests(tmp_path):
    """In a copy of the program, changed as the text says."""
    function, record = python_blocks(read("CONTRIBUTING.md"))
    for folder in ("autograd", "tinygpt", "benchmarks", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    source = tmp_path / "autograd/ops/elementwise.py"
    names, rest = source.read_text().split("__all__ = [\n", 1)
    source.write_text(f'{names}__all__ = [\n    "softplus",\n{rest}\n\n{function}')
    records = tmp_path / "tests/operations/elementwise.py"
    records.write_text(f"{records.read_text().rstrip().removesuffix(']')}{record}]\n")

    tests = ("test_gradients", "test_planted_bugs", "test_records", "cuda/test_gpu_path")
    files = [f"tests/autograd/{name}.py" for name in tests]
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-k", "softplus", *files]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    for file in files:
        assert re.search(rf"^{file}::.*softplus.* PASSED", result.stdout, re.MULTILINE), file


def test_the_counts_in_the_tests_readme_are_those_of_the_tests():
    """Those of the comparison with PyTorch are checked in tests/autograd/test_habits.py."""
    text = " ".join(read("tests/README.md").split())
    assert f"36 of 36 at first, {len(BUGS)} now" in text
    assert f"34 at first and {len(KERNEL_BUGS)} now" in text
