"""From a text to token ids and back: where texts come from, tokenizers and their files, byte-pair encoding."""
