"""Peak memory of two larger models with a vocabulary of 4,000, and their speed.

`python -m benchmarks.memory FILE`: the reference shape and one of 25 M parameters in its blocks, context 256,
byte-pair encoding learnt from the file. Writes benchmarks/results/memory.json.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks import save
from benchmarks.training import train

SHAPES = {"10.8 M": dict(n_layer=6, n_head=6, n_embd=384), "25 M": dict(n_layer=8, n_head=8, n_embd=512)}
SETTINGS = dict(preset="shakespeare", architecture="gpt2", tokenizer="bpe", vocab_size=4000)
LIMIT = 1500  # MB


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a name or a UTF-8 file")
    parser.add_argument("--steps", type=int, default=50, help="of 64 x 256 tokens (default: 50)")
    parser.add_argument("--quick", action="store_true", help="two steps, written nowhere")
    args = parser.parse_args()
    steps = 2 if args.quick else args.steps
    settings = SETTINGS | dict(
        data=args.data, max_steps=steps, eval_interval=steps, eval_iters=1, sample_tokens=50
    )
    report = {}
    for name, shape in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            report[name] = result = train(Path(folder) / "run", **settings, **shape)
        verdict = "within" if result["peak_mb"] <= LIMIT else "ABOVE"
        print(
            f"{name}: {result['parameters']:,} parameters, vocabulary of {result['vocabulary']:,}, {steps} "
            f"steps of {result['seconds'] / steps:.1f} s, peak memory {result['peak_mb']:,} MB, {verdict} "
            f"{LIMIT:,} MB",
            flush=True,
        )
        if not args.quick:
            save("memory.json", report)


if __name__ == "__main__":
    main()
