"""Answers to the notebooks' exercises as learners write them, one module per notebook.

Each wrong answer comes with words of the diagnosis that it must get. The name of a function says which
exercise it answers.
"""


class Catalogue:
    """Decorators that collect the answers for one notebook's checks."""

    def __init__(self, check):
        self.check, self.wrong_answers, self.right_answers = check, [], []

    def wrong(self, words):
        def collect(answer):
            self.wrong_answers.append((answer, words))
            return answer

        return collect

    def right(self, answer):
        """Right, though spelled differently from the solution: the check must not insist on one spelling."""
        self.right_answers.append(answer)
        return answer
