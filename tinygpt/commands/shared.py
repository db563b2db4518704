"""What the commands share."""

from tinygpt import gpt2
from tinygpt.model import GPT
from tinygpt.streams import tell
from tinygpt.text.tokenizer import IdTokenizer, Tokenizer

MODEL_HELP = "the folder of a run, of one of its checkpoints, or of a GPT-2 model"


def load_model(path: str) -> tuple[GPT, Tokenizer]:
    """(model, tokenizer) of a run's folder or a GPT-2 folder."""
    model, tokenizer = gpt2.load_model(path)
    if isinstance(tokenizer, IdTokenizer):
        note(f"{path} has no tokenizer.json: prompt and text are token ids")
    return model, tokenizer


def note(text: str) -> None:
    """Tell the user something that is not an error, apart from the output."""
    tell(f"note: {text}")
