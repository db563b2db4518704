"""GPT-2 at full size, 124 M parameters with random weights: read from its folder, and 40 tokens sampled.

`python -m benchmarks.gpt2` (a minute). Both programs, ours and transformers where it is installed, read the
same folder in a process of its own, in turns, and take the most likely token each time. Writes
benchmarks/results/gpt2.json. Real weights are not needed: they would take the same time.
"""

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks import in_own_process, processor, save
from benchmarks.step import CONFIGURATIONS
from tinygpt import GPT, generate, gpt2, load_model
from tinygpt.parallel.estimate import peak_memory
from tinygpt.text.tokenizer import IdTokenizer

PROMPT, TOKENS = [464, 3290, 318, 257], 40


def write_folder(folder):
    """A folder as transformers write it, without a tokenizer."""
    config = CONFIGURATIONS["gpt2"][1]
    gpt2.export(GPT(config, seed=0), IdTokenizer(config.vocab_size), folder)


def ours(folder):
    """Seconds to read and to sample, the peak memory in MB, and the tokens."""
    began = time.perf_counter()
    model, _ = load_model(folder)
    read = time.perf_counter()
    ids = list(generate(model, PROMPT, TOKENS, temperature=0.0))
    return report(began, read, ids)


def transformers(folder):
    """The same in PyTorch."""
    import torch
    from transformers import GPT2LMHeadModel

    began = time.perf_counter()
    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    read = time.perf_counter()
    prompt = torch.tensor([PROMPT])
    options = dict(do_sample=False, max_new_tokens=TOKENS, min_new_tokens=TOKENS, pad_token_id=0)
    ids = model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
    return report(began, read, ids[0, len(PROMPT) :].tolist())


def report(began, read, ids):
    seconds = dict(read_seconds=read - began, sample_seconds=time.perf_counter() - read)
    return dict(**seconds, mb=peak_memory() / 1e6, ids=ids)


def total(turn):
    return turn["read_seconds"] + turn["sample_seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3, help="of each program (default: 3)")
    args = parser.parse_args()
    best = {}
    with tempfile.TemporaryDirectory() as parent:
        folder = str(Path(parent) / "gpt2")
        in_own_process(write_folder, folder)
        for _ in range(args.turns):
            for program in (ours, transformers):
                if turn := in_own_process(program, folder):
                    best[program.__name__] = min(turn, best.get(program.__name__, turn), key=total)
    for name, turn in best.items():
        seconds = f"read in {turn['read_seconds']:.2f} s, {TOKENS} tokens in {turn['sample_seconds']:.2f} s"
        print(f"{name}: {seconds}, peak memory {turn['mb']:,.0f} MB")
    tokens = [turn.pop("ids") for turn in best.values()]
    if len(tokens) == 2:
        print("the same tokens" if tokens[0] == tokens[1] else "OTHER TOKENS")
    save("gpt2.json", dict(processor=processor(), **best))


if __name__ == "__main__":
    main()
