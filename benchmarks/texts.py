"""Texts by characters and by byte-pair encoding, each trained for the same time.

`python -m benchmarks.texts FILE ...` takes Tiny Shakespeare if no file is given. Every run has the preset
laptop with as many steps as fit the time. The table has bits per byte over the whole validation text. Writes
benchmarks/results/texts.json after each run, samples included.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks import save
from benchmarks.training import TOKENIZERS, bits_per_byte, seconds_per_step, train


def measure(text, settings, seconds, folder):
    settings = dict(preset="laptop", data=text, **settings)
    steps = max(20, round(seconds / seconds_per_step(folder, **settings)))
    result = train(folder, **settings, max_steps=steps, eval_interval=-(-steps // 5), eval_iters=10)
    result["val_bits_per_byte"] = bits_per_byte(folder, text)
    result["sample"] = (folder / "samples" / f"step_{steps:06d}.txt").read_text(encoding="utf-8")
    return result


def row(text, tokenizer, result):
    """The table's row for a run."""
    numbers = f"{result['parameters']:,} | {result['steps']:,} | {result['seconds']:.0f}"
    return f"| {text} | {tokenizer} | {numbers} | {result['val_bits_per_byte']:.3f} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "texts", nargs="*", default=["shakespeare"], help="names or UTF-8 files (default: shakespeare)"
    )
    parser.add_argument("--seconds", type=float, default=180, help="of training, for each run (default: 180)")
    parser.add_argument("--quick", action="store_true", help="three seconds each, written nowhere")
    args = parser.parse_args()
    seconds = 3 if args.quick else args.seconds
    report = {}
    print("| text | tokens | parameters | steps | seconds | bits per byte |\n|---|---|---|---|---|---|")
    for text in args.texts:
        name = Path(text).stem
        for tokenizer, settings in TOKENIZERS.items():
            with tempfile.TemporaryDirectory() as folder:
                result = measure(text, settings, seconds, Path(folder) / "run")
            report[f"{name}, {tokenizer}"] = result
            print(row(name, tokenizer, result), flush=True)
            if not args.quick:
                save("texts.json", report)
    for name, result in report.items():
        print(f"\n--- {name}\n{result['sample']}")


if __name__ == "__main__":
    main()
