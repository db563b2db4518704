"""train.py is what a learner reads first: short, and without functions inside functions."""

import ast
from pathlib import Path

import train

SOURCE = Path(train.__file__).read_text(encoding="utf-8")
FUNCTIONS = [node for node in ast.walk(ast.parse(SOURCE)) if isinstance(node, ast.FunctionDef)]


def test_main_can_be_read_at_once():
    (main,) = [function for function in FUNCTIONS if function.name == "main"]
    assert main.end_lineno - main.lineno + 1 <= 45
    assert len(SOURCE.splitlines()) < 200


def test_every_function_stands_at_the_top_level():
    assert {function.name: function.col_offset for function in FUNCTIONS if function.col_offset} == {}
    assert not [node for node in ast.walk(ast.parse(SOURCE)) if isinstance(node, ast.Lambda)]
