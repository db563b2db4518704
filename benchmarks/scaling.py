"""A family of models on the same number of tokens, by characters and by byte-pair encoding: `python -m
benchmarks.scaling`

Start small and grow: each model is about three times as large as the one before. Writes
benchmarks/results/scaling.json after each run and scaling.png, bits per byte of the validation text against
parameters and against training time.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.training import RESULTS, bits_per_byte, save, train

FAMILY = [(1, 2, 32), (2, 4, 64), (3, 8, 128), (4, 8, 192), (6, 8, 256)]  # layers, heads, channels
TOKENIZERS = {
    "characters": dict(tokenizer="char"),
    "BPE, 2,048 tokens": dict(tokenizer="bpe", vocab_size=2048),
}


def measure(text, tokenizer, shape, steps):
    """One model. The learning rate is the laptop preset's up to its width and falls with the width beyond."""
    n_layer, n_head, n_embd = shape
    settings = dict(
        preset="laptop", data=text, n_layer=n_layer, n_head=n_head, n_embd=n_embd, sample_tokens=0
    )
    settings |= dict(
        max_steps=steps, eval_interval=steps, eval_iters=5, learning_rate=5e-3 * min(1, 128 / n_embd)
    )
    with tempfile.TemporaryDirectory() as folder:
        result = train(Path(folder) / "run", **settings, **TOKENIZERS[tokenizer])
        result["val_bits_per_byte"] = bits_per_byte(Path(folder) / "run", text)
    print(
        f"{tokenizer}: {result['parameters']:,} parameters, {result['seconds']:.0f} s, "
        f"{result['val_bits_per_byte']:.3f}",
        flush=True,
    )
    return result | dict(n_layer=n_layer, n_embd=n_embd)


def plot(report):
    """Both curves of each tokenizer; on the left the size, on the right the time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2, sharey=True), ("parameters", "seconds"), strict=True):
        for tokenizer, points in report["runs"].items():
            axes.semilogx(
                [p[key] for p in points],
                [p["val_bits_per_byte"] for p in points],
                marker="o",
                label=tokenizer,
            )
        axes.set(
            xlabel="parameters" if key == "parameters" else "seconds of training",
            ylabel="validation loss, bits per byte",
        )
        axes.grid(alpha=0.3)
    axes.legend()
    figure.suptitle(f"{report['text']}: {report['tokens']:,} tokens for each model")
    figure.savefig(RESULTS / "scaling.png", dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="shakespeare", help="a name or a UTF-8 file (default: shakespeare)")
    parser.add_argument(
        "--steps", type=int, default=2000, help="of 16 x 96 tokens, for each model (default: 2000)"
    )
    parser.add_argument("--quick", action="store_true", help="two small models and 20 steps, written nowhere")
    args = parser.parse_args()
    steps, family = (20, FAMILY[:2]) if args.quick else (args.steps, FAMILY)
    report = dict(
        text=Path(args.data).stem, tokens=steps * 16 * 96, runs={tokenizer: [] for tokenizer in TOKENIZERS}
    )
    for shape in family:
        for tokenizer, results in report["runs"].items():
            results.append(measure(args.data, tokenizer, shape, steps))
            if not args.quick:
                save("scaling.json", report)
                plot(report)


if __name__ == "__main__":
    main()
