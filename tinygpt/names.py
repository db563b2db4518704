"""What a word that is unknown here may mean: misspelt, or what other programs call it."""

import difflib
from collections.abc import Iterable, Mapping

# What it is called here -> what other programs call it. A word may stand in several lines: the first that is
# among the choices counts.
MEANT = {
    "learning-rate": "lr max-lr peak-lr base-lr init-lr step-size eta",
    "max-steps": "steps iters max-iters max-iter iterations num-steps n-steps num-iters n-iters train-steps "
    "total-steps num-train-steps train-iters max-iterations",
    "block-size": "ctx context context-length context-size context-len ctx-len ctx-size n-ctx seq-len seqlen "
    "seq-length sequence-length max-length max-len max-seq-len max-seq-length n-positions bptt window",
    "n-layer": "layers layer n-layers num-layers nlayers nlayer depth num-hidden-layers blocks n-blocks",
    "n-head": "heads head n-heads num-heads nheads nhead num-attention-heads attention-heads",
    "n-embd": "dim d-model embed embedding embed-dim embedding-dim embedding-size emb emb-dim emb-size n-emb "
    "n-embed embed-size hidden hidden-size hidden-dim width channels rnn-size model-dim",
    "batch-size": "batch bs bsz train-batch-size per-device-train-batch-size",
    "micro-batch": "micro-batch-size mbs",
    "warmup-steps": "warmup warmup-iters warm-up num-warmup-steps lr-warmup warmup-iterations",
    "min-lr": "lr-min eta-min final-lr end-lr lr-end minimum-lr min-learning-rate",
    "weight-decay": "wd l2",
    "grad-clip": "clip clip-grad gradient-clip gradient-clipping clip-norm clip-grad-norm max-norm "
    "max-grad-norm gradient-clip-val",
    "dropout": "drop dropout-rate dropout-p dropout-prob drop-prob p-drop resid-pdrop attn-pdrop embd-pdrop",
    "eval-interval": "eval-every evaluate-every val-every val-interval eval-steps eval-freq save-interval "
    "save-every save-steps save-freq checkpoint-interval checkpoint-every ckpt-interval sample-every "
    "sample-interval evaluation-interval val-check-interval",
    "eval-iters": "eval-batches val-batches val-iters eval-iterations num-eval-batches",
    "sample-tokens": "sample-length sample-len sample-size",
    "data": "input file text corpus dataset data-dir data-file data-path train-file train-data train-path "
    "training-data input-file input-path text-file txt filename file-name path source dataset-name train",
    "init-from": "pretrained pretrained-model from-pretrained model model-name model-name-or-path weights "
    "base-model finetune fine-tune finetune-from",
    "resume": "checkpoint ckpt load load-checkpoint load-model continue restore restore-from restart "
    "resume-from resume-from-checkpoint from-checkpoint checkpoint-path ckpt-path",
    "tokens": "length len max-new-tokens new-tokens num-tokens n-tokens max-tokens max-length n n-predict "
    "gen-length steps sample-tokens chars num-chars",
    "out": "output out-dir output-dir outdir output-path output-file save save-dir save-to save-path run-dir "
    "run-name run name log-dir logdir checkpoint-dir ckpt-dir model-dir o",
    "device": "gpu gpus cuda cpu mps use-gpu use-cuda no-cuda accelerator n-gpu gpu-id",
    "precision": "dtype fp16 bf16 fp32 tf32 float16 bfloat16 float32 amp half mixed-precision torch-dtype",
    "threads": "workers num-workers n-workers jobs num-threads n-threads nthreads cores cpus nproc j",
    "seed": "random-seed rng-seed manual-seed random-state",
    "architecture": "arch model-type",
    "tokenizer": "tok bpe char tokenizer-path tokenizer-file tokenizer-type level",
    "vocab-size": "vocab n-vocab num-vocab vocabulary vocabulary-size num-words merges num-merges n-merges",
    "patience": "early-stopping early-stop early-stopping-patience",
    "beta1": "b1 adam-beta1 betas",
    "beta2": "b2 adam-beta2",
    "config": "cfg conf config-file configuration settings yaml toml c",
    "overwrite": "overwrite-output-dir force-overwrite replace",
    "activation-checkpointing": "gradient-checkpointing checkpoint-activations grad-checkpoint recompute",
    "prompt": "start start-text start-with starts-with seed-text prime prime-text primetext prefix input "
    "text begin i p context",
    "temperature": "temp temps t",
    "top-k": "topk k",
    "top-p": "topp nucleus p",
    "samples": "num-samples n-samples nsamples num-return-sequences batch batch-size count",
    # presets, architectures, precisions, commands
    "shakespeare": "shakespeare-char gpu nanogpt default reference",
    "laptop": "cpu small tiny default",
    "zh": "chinese cn zh-cn",
    "smoke": "test quick debug",
    "finetune": "fine-tune fine-tuning finetuning ft gpt2 gpt-2",
    "gpt2": "gpt-2 gpt hf",
    "reference": "nanogpt ref",
    "fp32": "float32 float full single",
    "bf16": "bfloat16 half fp16 float16 amp",
    "sample": "generate gen complete write infer predict",
    "eval": "evaluate test perplexity loss",
    "export": "convert save to-hf",
}

NOWHERE = "nothing is sent anywhere; every loss is in metrics.jsonl in the run's folder"
STEPS = (
    "there are no epochs: say --max-steps; at its start train.py prints how many steps are an epoch of the "
    "text, which is its tokens to train on / (batch_size * block_size)"
)
COSINE = "the rate falls along a cosine to --min-lr at --max-steps; with --min-lr -1 it stays constant"
LOGGED = (
    "metrics.jsonl has the training loss of every 10th step; --eval-interval says how often both losses "
    "are measured"
)
ACCUMULATED = (
    "say the whole batch as --batch-size; --micro-batch is how many of its sequences are computed at once"
)
KEPT = "the newest and the best checkpoint are kept, always"
RANKS = "mpiexec -n 4 python -m mpi4py train.py trains on 4 processes"
# What train.py does not have (words of other programs, separated by spaces), and what to do instead.
NOT_IN_TRAINING = {
    "epochs num-epochs n-epochs epoch num-train-epochs max-epochs nepochs": STEPS,
    "wandb wandb-log log-wandb wandb-project wandb-run-name use-wandb report-to tensorboard tb mlflow "
    "neptune logger": NOWHERE,
    "log-interval log-every logging-steps print-every print-interval log-freq": LOGGED,
    "decay-lr lr-decay lr-decay-iters lr-scheduler lr-scheduler-type lr-schedule scheduler decay-steps "
    "schedule": COSINE,
    "gradient-accumulation-steps gradient-accumulation grad-accum grad-accum-steps accum-steps "
    "accumulate": ACCUMULATED,
    "optimizer optim momentum adam sgd adamw": "the optimizer is AdamW: --beta1, --beta2, --weight-decay",
    "compile torch-compile flash flash-attention flash-attn jit": "there is nothing to compile; leave it out",
    "bias": "biases belong to the --architecture: gpt2 has them everywhere, reference not in the attention",
    "val-split validation-split test-split train-split train-frac train-ratio split val-data val-file valid "
    "eval-data test-data": "the last tenth of the text is kept for validation",
    "always-save-checkpoint save-total-limit save-best save-best-only keep": KEPT,
    "eval-only evaluate eval": "python -m tinygpt eval RUN measures a trained model",
    "export": "python -m tinygpt export RUN FOLDER writes a GPT-2 folder",
    "temperature temp top-k topk top-p topp prompt start num-samples samples max-new-tokens tokens generate "
    "sample": "python -m tinygpt sample RUN writes text",
    "nproc-per-node world-size distributed ddp nnodes local-rank": RANKS,
    "stop-at": "say --stop-after",
}
# The same for words in the place of a command of `python -m tinygpt`.
NOT_A_COMMAND = {"train fit learn": "a model is trained with python train.py"}
# The same for keys of a file of settings.
NOT_IN_A_FILE = {
    word: f"that is for the command line: --{word}" for word in ("config", "resume", "overwrite", "force")
}
# The same for `python -m tinygpt sample` and its sisters.
NOT_IN_COMMANDS = {
    "run checkpoint checkpoint-path ckpt ckpt-path load load-model model model-path model-dir out-dir "
    "run-dir init-from resume weights path": "the run stands without a flag: python -m tinygpt COMMAND RUN",
    "num-beams beams beam-size beam-width": "there is no beam search; --temperature 0 takes the most likely",
    "repetition-penalty frequency-penalty presence-penalty no-repeat-ngram-size": "there is none; try "
    "--top-p 0.9 or another --temperature",
    "preset dtype precision": "a model is used as it was trained; leave it out",
    "interactive chat repl": "on a terminal `sample RUN` without --prompt asks for one line after the other",
}


def nearest(word: str, choices: Iterable[str], absent: Mapping[str, str] | None = None) -> str:
    """A hint for an unknown word: the choice that is meant, or else all choices.

    absent: sentences that say what to do instead, by the words, separated by spaces, that they are for.
    """
    choices, key = list(choices), _plain(word)
    by_key = {_plain(choice): choice for choice in choices}
    meant = [key, *(here for here, theirs in MEANT.items() if key in theirs.split())]
    for here in meant:
        if here in by_key:
            return f"did you mean {by_key[here]!r}?"
    for words, sentence in (absent or {}).items():
        if key.removeprefix("no-") in words.split():
            return sentence
    close = difflib.get_close_matches(word, choices, 1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else "choose from " + ", ".join(choices)


def _plain(word):
    """A flag, key or name without what programs write differently: --Max_Iters is max-iters."""
    return word.strip().lower().lstrip("-").replace("_", "-").replace(".", "-")
