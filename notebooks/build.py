"""Make the notebooks from notebooks/src, or `--check` that the committed ones are up to date.

Each src/NN_title.py (jupytext's percent format) becomes NN_title.ipynb for learners, without the solutions,
and solutions/NN_title.ipynb. Both are executed, two notebooks at a time, each on one thread.

`--check` makes them too, changes nothing, and compares each cell with the committed one:
- sources, cell ids and tags: exactly;
- printed text: exactly, except for numbers. Those may differ by 1 % (and below 1e-6 by anything), since their
  last digits depend on the CPU and the versions of NumPy and BLAS;
- pictures: only their kinds, since their bytes change with matplotlib's version;
- players: that their program is the same, not the film in it.
Outputs of cells tagged `varies` depend on the machine and are not compared. Nor are those of cells tagged
`corpus` where there is no Tiny Shakespeare. A large player of a cell tagged `once` is kept in the learners'
notebook alone; the solved one, where it would be the same, has the still picture.

Always: no cell may fail or warn, every check in a solution must pass, and a learner's notebook must not hold
a line of a solution. With `--check`, notebooks that train do it with smaller models (NOTEBOOKS_QUICK), and
all learners' notebooks together must stay within the time limit.
"""

import argparse
import concurrent.futures
import hashlib
import html
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_notebook

HERE = Path(__file__).resolve().parent
BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"
TIME_LIMIT = 360  # seconds that --check allows all learners' notebooks together
WIDEST_LINE = 104  # characters of code that fit on a page
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")

# The first lines of a solved notebook: it lies in notebooks/solutions, the workbook in notebooks.
FIND_THE_WORKBOOK = """\
import sys

sys.path.insert(0, "..")  # the workbook lies one folder up

"""


class Problem(Exception):
    """Something in a notebook that must not be there."""


# --- from source to notebook ----------------------------------------------------------------------


def notebook_of(source, solved):
    """The notebook of a source file, not yet executed: for learners, or with the solutions."""
    cells = jupytext.read(source).cells
    if solved:
        first_code = next(cell for cell in cells if cell.cell_type == "code")
        first_code.source = FIND_THE_WORKBOOK + first_code.source
    else:
        cells = [cell for cell in cells if "solution" not in cell.metadata.get("tags", [])]
    for number, cell in enumerate(cells):
        cell.source = with_solution(cell.source) if solved else without_solution(cell.source)
        if solved and cell.cell_type == "markdown":
            # links out of this folder start one deeper
            cell.source = cell.source.replace("](../", "](../../")
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        content = f"{number} {cell.cell_type} {cell.source}"
        cell.id = hashlib.sha256(content.encode()).hexdigest()[:12]
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": python, "language_info": {"name": "python"}})


def with_solution(source):
    return "\n".join(line for line in source.split("\n") if line.strip() not in (BEGIN, END))


def without_solution(source):
    """The source with `...` and a number of lines in place of every block between the markers."""
    lines, block = [], None
    for line in source.split("\n"):
        if line.strip() == BEGIN:
            block = []
        elif line.strip() == END:
            count = sum(1 for solution_line in block if solution_line.strip())
            length = "one line" if count == 1 else f"about {count} lines"
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(f"{indent}...  # your turn: {length}")
            block = None
        elif block is not None:
            block.append(line)
        else:
            lines.append(line)
    return "\n".join(lines)


def solution_lines(source):
    """The lines between the markers that give something away."""
    blocks = re.findall(rf"{BEGIN}\n(.*?)\n\s*{END}", source, re.S)
    return {line.strip() for block in blocks for line in block.split("\n") if len(line.strip()) > 12}


# --- running --------------------------------------------------------------------------------------


def execute(notebook, folder):
    """Run all cells in the folder, and leave nothing in the outputs that depends on when or where.

    The library is found through PYTHONPATH, the workbook only as it is for a learner: from the folder.
    """
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(HERE.parent)}
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=600, record_timing=False, resources=resources)
    # stderr has only what the kernel says about itself; a cell's warnings are among its outputs
    client.execute(env=environment, cwd=str(folder), stderr=subprocess.DEVNULL)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = joined_streams(cell.outputs)
            cell.metadata.pop("execution", None)
    notebook.metadata["language_info"] = {"name": "python"}


def joined_streams(outputs):
    """The same outputs; printed text that arrived in pieces is in one piece."""
    joined = []
    for output in outputs:
        if output.output_type == "stream" and joined and joined[-1].get("name") == output.name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def make(source, solved):
    """(path, executed notebook, seconds)."""
    notebook = notebook_of(source, solved)
    path = (HERE / "solutions" if solved else HERE) / f"{source.stem}.ipynb"
    path.parent.mkdir(exist_ok=True)
    started = time.perf_counter()
    execute(notebook, path.parent)
    if solved:
        leave_out_second_players(notebook)
    examine(notebook, solved, solution_lines(source.read_text(encoding="utf-8")))
    return path, notebook, time.perf_counter() - started


def leave_out_second_players(notebook):
    """In cells tagged `once` leave the picture and the text of an output, without its HTML."""
    for cell in notebook.cells:
        if "once" in cell.metadata.get("tags", []):
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data.pop("text/html", None)


def examine(notebook, solved, secrets):
    """Raise Problem for outputs or code that must not be there."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for output in cell.outputs:
                examine_output(output, solved)
                examine_html(output)
            examine_code(cell.source, set() if solved else secrets)


def examine_output(output, solved):
    text = text_of(output)
    if output.get("name") == "stderr":
        raise Problem(f"a cell warns:\n{text}")
    if str(HERE.parent) in text or str(Path.home()) + os.sep in text:
        raise Problem(f"a path of this machine in an output:\n{text[:300]}")
    if re.search(r" at 0x[0-9a-f]+>", text):
        raise Problem(f"an address in an output, another one each time:\n{text[:300]}")
    if solved and re.search("^[✗○] ", text, re.M):
        raise Problem(f"a solution does not pass:\n{text}")


def examine_html(output):
    """A player shows where its sources come from: from no path, and not from the workbook's solutions."""
    page = html.unescape(output.get("data", {}).get("text/html", ""))
    for place in (str(HERE.parent), str(Path.home()) + os.sep, tempfile.gettempdir() + os.sep):
        if place in page:
            raise Problem(f"a path of this machine in a player: {place}")
    if '"file":"notebooks/workbook' in page:
        raise Problem("a player shows the source of a solution, from the workbook")


def examine_code(source, secrets):
    for line in source.split("\n"):
        if len(line) > WIDEST_LINE:
            raise Problem(
                f"a line of code has more than {WIDEST_LINE} characters and will be cut off:\n{line}"
            )
        if line.strip() in secrets:
            raise Problem(f"a learner's notebook contains the solution: {line.strip()}")


def text_of(output):
    return output.get("text") or output.get("data", {}).get("text/plain", "")


# --- comparing ------------------------------------------------------------------------------------


def differences(old, new, has_corpus):
    """What differs between the committed notebook and the one just made, as lines of text."""
    if [(c.id, c.source, c.metadata) for c in old.cells] != [(c.id, c.source, c.metadata) for c in new.cells]:
        return ["the sources differ"]
    found = []
    for number, (a, b) in enumerate(zip(old.cells, new.cells, strict=True)):
        tags = b.metadata.get("tags", [])
        if b.cell_type != "code" or "varies" in tags or ("corpus" in tags and not has_corpus):
            continue
        if [kinds(output) for output in a.outputs] != [kinds(output) for output in b.outputs]:
            found.append(f"cell {number} has other kinds of output")
        for one, other in zip(a.outputs, b.outputs, strict=False):
            if program_of(one) != program_of(other):
                found.append(f"cell {number} holds a player that has changed since")
            if not same_text(text_of(one), text_of(other)):
                found.append(f"cell {number} says\n{text_of(other)}\ninstead of\n{text_of(one)}")
    return found


def kinds(output):
    return output.output_type, sorted(output.get("data", {}))


def program_of(output):
    """What a page's content security policy says about its style and its script."""
    return re.findall(r"sha256-[\w+/]+", output.get("data", {}).get("text/html", ""))


NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?")


def same_text(a, b):
    """Whether two texts are equal, except for the last digits of numbers."""
    if NUMBER.sub("#", a) != NUMBER.sub("#", b):
        return False
    pairs = zip(map(float, NUMBER.findall(a)), map(float, NUMBER.findall(b)), strict=True)
    return all(abs(x - y) <= 0.01 * max(abs(x), abs(y)) or max(abs(x), abs(y)) < 1e-6 for x, y in pairs)


# --- the command ----------------------------------------------------------------------------------


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("numbers", nargs="*", help="only these notebooks, for example 1 4")
    check_help = "change nothing; fail if the committed notebooks differ"
    parser.add_argument("--check", action="store_true", help=check_help)
    options = parser.parse_args(argv)
    if options.check:
        os.environ["NOTEBOOKS_QUICK"] = "1"
    sources = sorted((HERE / "src").glob("[0-9]*.py"))
    if options.numbers:
        sources = [source for source in sources if str(int(source.stem[:2])) in options.numbers]
    has_corpus = finds_shakespeare()
    jobs = [(source, solved) for source in sources for solved in (False, True)]
    failed, learners_time = False, 0.0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for (source, solved), future in [(job, pool.submit(make, *job)) for job in jobs]:
            try:
                path, notebook, seconds = future.result()
                problems = finish(path, notebook, options.check, has_corpus)
            except Exception as error:
                problems, seconds = [str(error)], 0.0
            name = f"solutions/{source.stem}" if solved else source.stem
            verdict = "FAILED" if problems else "ok"
            print(f"{verdict}  {name}  {seconds:.0f} s", *problems, sep="\n    ", flush=True)
            failed = failed or bool(problems)
            if not solved:
                learners_time += seconds
    corpus = "shakespeare" if has_corpus else "python"
    print(f"learners' notebooks: {learners_time:.0f} s (limit {TIME_LIMIT} s); corpus: {corpus}")
    too_slow = options.check and learners_time > TIME_LIMIT
    return 1 if failed or too_slow else 0


def finish(path, notebook, check, has_corpus):
    """Write the notebook, or compare it with the committed one; returns what is wrong."""
    if not check:
        nbformat.write(notebook, path)
        return []
    if not path.exists():
        return ["is not there"]
    return differences(nbformat.read(path, 4), notebook, has_corpus)


def finds_shakespeare():
    """Whether the notebooks will find Tiny Shakespeare. Otherwise they use Python's standard library."""
    sys.path[:0] = [str(HERE.parent), str(HERE)]
    from workbook.corpus import load

    return load(say=lambda line: None)[0] == "shakespeare"


if __name__ == "__main__":
    sys.exit(main())
