"""GPT-2's own format, as Hugging Face's transformers use it: a folder with config.json and model.safetensors.

Our weights have GPT-2's names and layout, (in, out). Only an output head of its own is stored the other way
round, (vocabulary, channels). A folder whose model would compute something else here, or whose tokenizer
would give other ids, is refused.
"""

from tinygpt.gpt2.config import is_gpt2, read_config
from tinygpt.gpt2.exporting import export, source_of
from tinygpt.gpt2.loading import initial_model, load_model, settings_from

__all__ = ["export", "initial_model", "is_gpt2", "load_model", "read_config", "settings_from", "source_of"]
