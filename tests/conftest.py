import hypothesis
import pytest

from tests.support import survived
from tests.support.texts import english

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=25)
hypothesis.settings.load_profile("repeatable")


def pytest_addoption(parser):
    parser.addoption(
        "--full",
        action="store_true",
        help="the crash and fuzz tests in full: 200 kills, 20,000 files and more",
    )


def pytest_terminal_summary(terminalreporter):
    if survived.tried:
        terminalreporter.write_line(survived.table())


@pytest.fixture
def text_file(tmp_path):
    """A file of our own text, large enough to train on for a few steps."""
    path = tmp_path / "words.txt"
    path.write_text(english(), encoding="utf-8")
    return path
