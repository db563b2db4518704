"""A family of models on the same number of tokens, by characters and by byte-pair encoding.

`python -m benchmarks.scaling`: start small and grow. Each model is about three times as large as the one
before. Writes benchmarks/results/scaling.json after each run, and scaling.png: bits per byte of the
validation text against parameters and against training time.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks import RESULTS, save
from benchmarks.training import TOKENIZERS, bits_per_byte, train

FAMILY = [  # shapes
    dict(n_layer=1, n_head=2, n_embd=32),
    dict(n_layer=2, n_head=4, n_embd=64),
    dict(n_layer=3, n_head=8, n_embd=128),
    dict(n_layer=4, n_head=8, n_embd=192),
    dict(n_layer=6, n_head=8, n_embd=256),
]
TOKENS_PER_STEP = 16 * 96  # of the preset laptop


def measure(text, tokenizer, shape, steps):
    """One model. The learning rate is the laptop preset's up to its width and falls with the width beyond."""
    settings = dict(
        preset="laptop",
        data=text,
        max_steps=steps,
        eval_interval=steps,
        eval_iters=5,
        sample_tokens=0,
        learning_rate=5e-3 * min(1, 128 / shape["n_embd"]),
    )
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        result = train(run, **settings, **shape, **TOKENIZERS[tokenizer])
        result["val_bits_per_byte"] = bits_per_byte(run, text)
    print(
        f"{tokenizer}: {result['parameters']:,} parameters, {result['seconds']:.0f} s, "
        f"{result['val_bits_per_byte']:.3f}",
        flush=True,
    )
    return result | dict(n_layer=shape["n_layer"], n_embd=shape["n_embd"])


def plot(report):
    """Both curves of each tokenizer; on the left the size, on the right the time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, key, label in ((left, "parameters", "parameters"), (right, "seconds", "seconds of training")):
        for tokenizer, points in report["runs"].items():
            losses = [point["val_bits_per_byte"] for point in points]
            axes.semilogx([point[key] for point in points], losses, marker="o", label=tokenizer)
        axes.set(xlabel=label, ylabel="validation loss, bits per byte")
        axes.grid(alpha=0.3)
    right.legend()
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
    runs = {tokenizer: [] for tokenizer in TOKENIZERS}
    report = dict(text=Path(args.data).stem, tokens=steps * TOKENS_PER_STEP, runs=runs)
    for shape in family:
        for tokenizer, results in runs.items():
            results.append(measure(args.data, tokenizer, shape, steps))
            if not args.quick:
                save("scaling.json", report)
                plot(report)


if __name__ == "__main__":
    main()
