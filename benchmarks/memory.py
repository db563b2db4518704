"""Peak memory of two larger models with a vocabulary of 4,000, and their speed: `python -m benchmarks.memory
FILE`

The reference shape and one of 25 M parameters in its blocks, context 256, byte-pair encoding learnt from the
file. Writes benchmarks/results/memory.json.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.training import save, train

SHAPES = {"10.8 M": dict(n_layer=6, n_head=6, n_embd=384), "25 M": dict(n_layer=8, n_head=8, n_embd=512)}
LIMIT = 1500  # MB


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a name or a UTF-8 file")
    parser.add_argument("--steps", type=int, default=50, help="of 64 x 256 tokens (default: 50)")
    parser.add_argument("--quick", action="store_true", help="two steps, written nowhere")
    args = parser.parse_args()
    steps, report = 2 if args.quick else args.steps, {}
    for name, shape in SHAPES.items():
        settings = dict(
            preset="shakespeare",
            data=args.data,
            tokenizer="bpe",
            vocab_size=4000,
            architecture="gpt2",
            **shape,
        )
        with tempfile.TemporaryDirectory() as folder:
            settings |= dict(max_steps=steps, eval_interval=steps, eval_iters=1, sample_tokens=50)
            report[name] = result = train(Path(folder) / "run", **settings)
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
