"""Whether tests/operations is complete: an operation without its tests fails here, by name."""

import dataclasses
import importlib
import inspect
import pkgutil
from unittest import mock

import pytest

import autograd as ag
from autograd import Tensor
from autograd.ops import linalg
from tests.operations import KERNEL_CHECKS, RECORDS

# --- the rules ------------------------------------------------------------------------------------


def functions_with_forms():
    """Every operation, and every other function that may have a form for a GPU, found in the modules."""
    names = [module.name for module in pkgutil.walk_packages(ag.__path__, "autograd.")]
    modules = [importlib.import_module(name) for name in names]
    functions = {value for module in modules for value in vars(module).values() if inspect.isfunction(value)}
    found = [function for function in functions if hasattr(function, "on_gpu")]
    return sorted(found, key=lambda function: (function.__module__, function.__name__))


def is_operation(function):
    return inspect.signature(function).return_annotation is Tensor


def missing(function, records):
    """What the tests lack of a function: ["name: what"]."""
    record = next((record for record in records if record.function is function), None)
    if record is None:
        return [f"{function.__name__}: no record in tests/operations"]
    needed = {"planted bug": record.bugs}
    if is_operation(function):
        needed["gradient case"] = record.cases
    else:
        needed["check"] = record.checks
    if function.gpu_form:
        needed |= {"kernel check": record.kernel_checks, "planted kernel bug": record.kernel_bugs}
    if function.gpu_form and is_operation(function):
        needed["composition from primitives"] = record.composed
    return [f"{function.__name__}: no {what}" for what, there in needed.items() if not there]


# --- the operations of this repository ------------------------------------------------------------

FUNCTIONS = functions_with_forms()
OPERATIONS = [function for function in FUNCTIONS if is_operation(function)]


def test_the_walk_finds_the_operations():
    assert len(OPERATIONS) >= 47 and {ag.add, ag.linear, ag.linear_cross_entropy} <= set(OPERATIONS)
    assert {"attend", "adamw", "norm"} == {f.__name__ for f in set(FUNCTIONS) - set(OPERATIONS)}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_the_record_is_complete(function):
    assert missing(function, RECORDS) == []
    assert [record.function for record in RECORDS].count(function) == 1


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda function: function.__name__)
def test_the_operation_can_be_reached_from_autograd(operation):
    public = getattr(ag, operation.__name__.strip("_"), None)
    assert public is not None, f"autograd has no {operation.__name__.strip('_')}"
    if public is not operation:  # a function around it, as concatenate
        assert operation.__name__ in public.__code__.co_names


def test_no_two_kernel_checks_have_one_name():
    assert len({check for record in RECORDS for check in record.kernel_checks}) == len(KERNEL_CHECKS)


RECORDS_OF_OPERATIONS = [record for record in RECORDS if record.function in OPERATIONS]


@pytest.mark.parametrize("record", RECORDS_OF_OPERATIONS, ids=lambda record: record.function.__name__)
def test_each_case_runs_its_operation(record, monkeypatch):
    raw = mock.Mock(wraps=record.function.raw)
    monkeypatch.setattr(record.function, "raw", raw)
    for name, case in record.cases.items():
        raw.reset_mock()
        case.function(*case.inputs())
        assert raw.called, f"{name} does not call {record.function.__name__}"


# --- records that are not complete ----------------------------------------------------------------

LINEAR = next(record for record in RECORDS if record.function is linalg.linear)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("cases", "linear: no gradient case"),
        ("bugs", "linear: no planted bug"),
        ("composed", "linear: no composition from primitives"),
        ("kernel_checks", "linear: no kernel check"),
        ("kernel_bugs", "linear: no planted kernel bug"),
    ],
)
def test_a_part_that_is_missing_is_named(part, message):
    empty = type(getattr(LINEAR, part))()
    assert missing(linalg.linear, [dataclasses.replace(LINEAR, **{part: empty})]) == [message]


def test_a_record_that_is_missing_is_named():
    others = [record for record in RECORDS if record is not LINEAR]
    assert missing(linalg.linear, others) == ["linear: no record in tests/operations"]


def test_a_new_operation_needs_a_record():
    @ag.op
    def cube(x):
        return x**3, lambda g: g * 3 * x**2

    assert is_operation(cube) and missing(cube, RECORDS) == ["cube: no record in tests/operations"]
