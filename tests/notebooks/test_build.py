"""How notebooks are made and compared. Needs the extra `notebooks`; executes nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jupytext", reason="needs pip install -e '.[notebooks]'")
pytest.importorskip("nbclient", reason="needs pip install -e '.[notebooks]'")

import nbformat
from nbformat.v4 import new_output

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "notebooks"))
import build

SOURCE = '''# %% [markdown]
# # A title, and [a link](../autograd/tensor.py)

# %%
def twice(x):
    """Two times x."""
    # BEGIN SOLUTION
    doubled = 2 * x
    return doubled
    # END SOLUTION


twice = check(twice)

# %% tags=["corpus"]
print("loss 2.4512, after 300 steps")

# %% [markdown] tags=["solution"]
# Only for those who look.
'''


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "01_twice.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


def code_of(notebook):
    return "\n".join(cell.source for cell in notebook.cells)


def test_learners_get_no_solution(source):
    learner, solved = build.notebook_of(source, False), build.notebook_of(source, True)
    assert "doubled" not in code_of(learner) and "    ...  # your turn: about 2 lines" in code_of(learner)
    assert "doubled = 2 * x" in code_of(solved) and "SOLUTION" not in code_of(solved)
    assert "Only for those who look" in code_of(solved) and "Only for those who look" not in code_of(learner)


def test_links_lead_out_of_either_folder(source):
    assert "](../autograd" in code_of(build.notebook_of(source, False))
    assert "](../../autograd" in code_of(build.notebook_of(source, True))


def test_only_solutions_look_for_the_workbook_one_folder_up(source):
    _, learners_first, *_ = build.notebook_of(source, False).cells
    _, first, second = (cell.source for cell in build.notebook_of(source, True).cells[:3])
    assert learners_first.source.startswith("def twice(x):")
    assert first.startswith(build.FIND_THE_WORKBOOK + "def twice(x):") and "sys.path" not in second


def test_the_lines_in_front_of_a_solution_find_the_workbook():
    program = build.FIND_THE_WORKBOOK + "import workbook"
    subprocess.run([sys.executable, "-c", program], cwd=build.HERE / "solutions", check=True)


def test_the_same_source_gives_the_same_notebook(source):
    once, again = (nbformat.writes(build.notebook_of(source, True)) for _ in range(2))
    assert once == again
    ids = [cell.id for cell in build.notebook_of(source, True).cells]
    assert len(set(ids)) == len(ids)
    nbformat.validate(build.notebook_of(source, True))


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("loss 2.4512", "loss 2.4509", True),
        ("loss 2.4512", "loss 2.52", False),
        ("error 3e-12", "error 8e-13", True),
        ("step 100", "step 200", False),
        ("right: True", "right: False", False),
        ("[1, 2]", "[1, 2, 3]", False),
    ],
)
def test_numbers_may_differ_in_their_last_digits(a, b, same):
    assert build.same_text(a, b) is same


def test_what_counts_as_a_difference(source):
    def notebook(text, kind="text/plain"):
        made = build.notebook_of(source, True)
        made.cells[1].outputs = [new_output("stream", text="✓ twice is right.\n")]
        made.cells[2].outputs = [new_output("display_data", data={kind: text})]
        return made

    old = notebook("loss 2.45")
    assert build.differences(old, notebook("loss 2.451"), has_corpus=True) == []
    assert "instead of" in build.differences(old, notebook("loss 3.1"), has_corpus=True)[0]
    # another text gives another loss
    assert build.differences(old, notebook("loss 3.1"), has_corpus=False) == []
    assert "kinds" in build.differences(old, notebook("x", "image/png"), has_corpus=True)[0]
    changed = notebook("loss 2.45")
    changed.cells[1].source += "\nprint(1)"
    assert build.differences(old, changed, has_corpus=True) == ["the sources differ"]


def player(film="", program="sha256-abc"):
    page = f"<p>&#39;{program}&#39;</p><script>{film}</script>".replace('"', "&quot;")
    data = {"text/html": f"<iframe srcdoc='{page}'></iframe>", "image/png": "", "text/plain": "a film"}
    return new_output("execute_result", data=data)


def test_a_player_differs_if_its_program_does(source):
    def notebook(**parts):
        made = build.notebook_of(source, True)
        made.cells[2].outputs = [player(**parts)]
        return made

    old = notebook(film="1.25")
    assert build.differences(old, notebook(film="1.26"), has_corpus=True) == []
    assert "changed" in build.differences(old, notebook(program="sha256-abd"), has_corpus=True)[0]


def test_a_player_is_not_kept_twice_in_a_cell_with_that_tag(source):
    notebook = build.notebook_of(source, True)
    notebook.cells[1].outputs, notebook.cells[2].outputs = [player()], [player()]
    notebook.cells[2].metadata["tags"] = ["once"]
    build.leave_out_second_players(notebook)
    kinds = [sorted(cell.outputs[0].data) for cell in notebook.cells[1:3]]
    assert kinds == [["image/png", "text/html", "text/plain"], ["image/png", "text/plain"]]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (new_output("stream", name="stderr", text="DeprecationWarning"), "warns"),
        (new_output("stream", text=f"{build.HERE.parent}/x"), "path"),
        (new_output("display_data", data={"text/plain": "<Film object at 0x7fa3>"}), "an address"),
        (player('{"file":"notebooks/workbook/scalar.py"}'), "source of a solution"),
        (player(f'{{"file":"{build.HERE.parent}/x.py"}}'), "path of this machine in a player"),
        (new_output("stream", text="✗ twice: wrong\n"), "does not pass"),
        (new_output("stream", text="○ twice is not written yet.\n"), "does not pass"),
    ],
)
def test_outputs_that_must_not_be(source, output, words):
    notebook = build.notebook_of(source, True)
    notebook.cells[1].outputs = [output]
    with pytest.raises(build.Problem, match=words):
        build.examine(notebook, True, set())


def test_a_solution_in_a_learners_cell_is_found(source):
    notebook = build.notebook_of(source, False)
    notebook.cells[2].source = "    doubled = 2 * x"
    with pytest.raises(build.Problem, match="contains the solution"):
        build.examine(notebook, False, build.solution_lines(SOURCE))


def test_lines_that_would_be_cut_off_are_found(source):
    notebook = build.notebook_of(source, True)
    notebook.cells[2].source = "x" * (build.WIDEST_LINE + 1)
    with pytest.raises(build.Problem, match="cut off"):
        build.examine(notebook, True, set())
