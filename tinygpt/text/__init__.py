"""From a text to token ids and back: sources of texts, tokenizers and their files, byte-pair encoding."""
