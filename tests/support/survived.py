"""The faults that the tests have tried so far, counted; pytest prints them at its end."""

from collections import Counter

tried = Counter()


def count(fault, number=1):
    """Note that so many faults of a kind were tried, and that all was as it should be afterwards."""
    tried[fault] += number


def table():
    """The counts as a table in Markdown."""
    lines = ["| fault | tried, and survived |", "|---|---|"]
    lines += [f"| {fault} | {number:,} |" for fault, number in tried.items()]
    return "\n".join(lines)
