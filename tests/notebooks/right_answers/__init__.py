"""Right answers to the notebooks' exercises, written in other ways than the solution.

One module per notebook. The checks must accept each: another formula, loops or no loops, lists or tuples,
its own copies changed in place. The name of a function says which exercise it answers.
"""
