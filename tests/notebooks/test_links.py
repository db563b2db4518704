"""Every relative link of the notebooks and of their README leads to a file, and to a heading of it."""

import re
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
PAGES = [NOTEBOOKS / "README.md", *sorted((NOTEBOOKS / "src").glob("[0-9]*.py"))]


def links_of(page):
    """The targets of the relative links in a page; of a notebook's source only its prose, the comments."""
    lines = page.read_text(encoding="utf-8").split("\n")
    prose = lines if page.suffix == ".md" else [line for line in lines if line.startswith("#")]
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", "\n".join(prose)) if "://" not in link]


def headings_of(path):
    """The headings of a Markdown file as links name them: "Map of the code" is map-of-the-code."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page):
    links = links_of(page)
    assert links
    for link in links:
        file, _, heading = link.partition("#")
        assert (NOTEBOOKS / file).is_file(), link
        assert not heading or heading in headings_of(NOTEBOOKS / file), link
