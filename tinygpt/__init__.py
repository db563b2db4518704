"""A GPT trained by a hand-written autograd engine.

Start with `model.py`; `train.py` beside this package is the loop. With a trained model:

    from tinygpt import generate, load_model

    model, tokenizer = load_model("runs/NAME")
    ids = generate(model, tokenizer.encode("ROMEO:"), n_tokens=100)
    print(tokenizer.decode(list(ids)))
"""

import tinygpt.startup  # noqa: F401  first, since it reports what goes wrong with the other imports

# isort: split
import autograd

if not hasattr(autograd, "gradcheck"):
    raise ImportError(
        f"the package `autograd` found at {autograd.__file__} is another one of that name; uninstall it "
        "(pip uninstall autograd) or start Python in tinygpt's folder with its own environment"
    )

from tinygpt.config import ARCHITECTURES, PRESETS, GPTConfig, TrainConfig, UserError
from tinygpt.generate import generate, prompt_ids
from tinygpt.gpt2 import load_model
from tinygpt.model import GPT
from tinygpt.text.corpus import load_documents, load_text
from tinygpt.text.data import Dataset
from tinygpt.text.tokenizer import BPETokenizer, CharTokenizer
from tinygpt.text.tokenizer_folder import load_tokenizer
from tinygpt.version import __version__

__all__ = [
    "ARCHITECTURES",
    "BPETokenizer",
    "CharTokenizer",
    "Dataset",
    "GPT",
    "GPTConfig",
    "PRESETS",
    "TrainConfig",
    "UserError",
    "__version__",
    "generate",
    "load_documents",
    "load_model",
    "load_text",
    "load_tokenizer",
    "prompt_ids",
]
