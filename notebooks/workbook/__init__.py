"""What the notebooks import: the checks of each notebook's exercises with their diagnoses, and the pictures.

One module per notebook (`slope`, `scalar`, ...); `checking.py` has what they share.
"""
