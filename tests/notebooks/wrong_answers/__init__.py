"""Answers to the notebooks' exercises as learners write them, one module per notebook.

Each wrong answer comes with words of the diagnosis that it must get. The name of a function says which
exercise it answers. Right answers, written in other ways than the solution, are in right_answers beside it.
"""


class Catalogue:
    """Decorators that collect the answers for one notebook's checks, and tables of short ones."""

    def __init__(self, check):
        self.check, self.wrong_answers, self.right_answers = check, [], []

    def wrong(self, words):
        def collect(answer):
            self.wrong_answers.append((answer, words))
            return answer

        return collect

    def wrong_ones(self, exercise, answers):
        """Many at once: {words of the diagnosis: answer}."""
        for words, answer in answers.items():
            answer.__name__ = exercise
            self.wrong_answers.append((answer, words))

    def right(self, answer):
        """Right, though spelled differently from the solution: the check must not insist on one spelling."""
        self.right_answers.append(answer)
        return answer

    def right_ones(self, exercise, *answers):
        """Many at once."""
        for answer in answers:
            answer.__name__ = exercise
            self.right_answers.append(answer)
