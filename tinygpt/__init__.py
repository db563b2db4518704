"""A GPT trained by a hand-written autograd engine.

Start with `model.py`; `train.py` beside this package is the loop.
"""

import autograd

if not hasattr(autograd, "gradcheck"):
    raise ImportError(
        f"the package `autograd` found at {autograd.__file__} is another one of that name; uninstall it "
        "(pip uninstall autograd) or start Python in tinygpt's folder with its own environment"
    )
