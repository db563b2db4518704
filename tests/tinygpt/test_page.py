"""`python -m tinygpt page` without a browser: what is in the file, and its model under node."""

import base64
import hashlib
import re
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from autograd import no_grad
from tests.support.commands import refused
from tests.support.here import tinygpt_here as tinygpt
from tests.support.models import sharp_model
from tests.support.pages import TEXT, Page, as_in_page, byte_pairs, characters, in_node
from tests.support.runs import SMOKE, train_here
from tests.support.texts import CHINESE, english
from tinygpt import page
from tinygpt.config import ARCHITECTURES, PRESETS, GPTConfig, UserError
from tinygpt.generate import probabilities
from tinygpt.model import GPT
from tinygpt.page import KINDS, document, page_of
from tinygpt.run import checkpoint
from tinygpt.text.added_tokens import AddedToken
from tinygpt.text.tokenizer import END_OF_TEXT as END
from tinygpt.text.tokenizer import BPETokenizer, CharTokenizer, IdTokenizer

SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in document.HERE.glob("*.js")}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a small text that has the characters of TEXT."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "love.txt").write_text(f"{TEXT} You love me, too.\n" * 60, encoding="utf-8")
    train_here(**SMOKE | dict(max_steps=1, sample_tokens=0), data=folder / "love.txt", out=folder / "love")
    return folder / "love"


def small_page(architecture="reference", tokenizer=None, weights="float32", **shape):
    """(model, its Page)."""
    tokenizer = tokenizer or characters()
    model = sharp_model(architecture, **dict(vocab_size=tokenizer.vocab_size) | shape)
    return model, Page(page_of(model, tokenizer, "small", weights))


# --- what is in the file --------------------------------------------------------------------------


def test_nothing_is_loaded_and_only_these_scripts_may_run():
    _, small = small_page()
    policy = next(a["content"] for _, a in small.tags if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))

    def hash_of(text):
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert rules["default-src"] == "'none'" and rules["worker-src"] == "blob:" and rules["img-src"] == "data:"
    assert rules["script-src"] == " ".join(map(hash_of, small.scripts))
    assert rules["style-src"] == hash_of(small.texts["style"])
    assert set(rules) - {"base-uri", "form-action"} == {
        "default-src", "script-src", "style-src", "worker-src", "img-src",
    }  # fmt: skip
    for tag, attributes in small.tags:
        assert not any(name.startswith("on") or name in ("src", "style", "action") for name in attributes), (
            tag
        )
        assert attributes.get("href", "data:,") == "data:,"


def test_no_script_makes_code_or_html_of_a_text():
    for name, source in SCRIPTS.items():
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval", "Function(",
                     "fetch", "XMLHttpRequest", "WebSocket", "import", "http:", "https:", "</"):  # fmt: skip
            assert word not in source, f"{name}: {word}"
    assert not re.search(r"https?:|@import|url\(", (document.HERE / "page.css").read_text(encoding="utf-8"))


def test_the_model_in_javascript_is_short_and_has_the_names_of_the_model_in_python():
    lines = [line for name in ("tokenizer", "model", "worker") for line in SCRIPTS[f"{name}.js"].splitlines()]
    assert len(lines) <= 400
    assert max(map(len, "\n".join(SCRIPTS.values()).splitlines())) <= 110
    for name in ("Linear", "LayerNorm", "CausalSelfAttention", "MLP", "Block", "GPT", "KeyValueCache"):
        assert f"class {name} " in SCRIPTS["model.js"]


def test_every_input_has_a_label():
    _, small = small_page()
    labels = {attributes.get("for") for tag, attributes in small.tags if tag == "label"}
    for tag, attributes in small.tags:
        if tag in ("textarea", "input") and attributes.get("type") != "checkbox":  # its label is around it
            assert attributes["id"] in labels
        if tag == "canvas":
            assert attributes["role"] == "img" and attributes["aria-label"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_are_those_of_the_model(kind, architecture):
    model, small = small_page(architecture, weights=kind)
    found, parameters = small.weights(), dict(model.named_parameters())
    assert list(found) == list(parameters)
    for name, array in found.items():
        wanted = as_in_page(model, name)
        if kind == "float32" or array.ndim == 1:
            assert np.array_equal(array, wanted)
        elif kind == "float16":
            assert np.array_equal(array, wanted.astype(np.float16))
        else:
            step = np.abs(wanted).max(1, keepdims=True) / np.iinfo(kind).max
            assert (np.abs(array - wanted) <= 0.51 * step).all() and (array != 0).any()


def test_the_laptop_model_takes_less_than_2_mb():
    settings = PRESETS["laptop"]
    names = ("block_size", "n_layer", "n_head", "n_embd")
    shape = {name: settings[name] for name in names} | ARCHITECTURES[settings["architecture"]]
    tokenizer = CharTokenizer(map(chr, range(32, 97)))  # as many as Tiny Shakespeare has
    text = page_of(GPT(GPTConfig(65, **shape)), tokenizer, "laptop")
    assert 1_500_000 < len(text.encode()) < 2_000_000


def test_a_name_and_tokens_that_look_like_html_stay_text():
    chars = characters("</>{}").chars
    tokenizer = CharTokenizer(chars, added=[AddedToken(len(chars), "</script><!--")])
    model = sharp_model("reference", vocab_size=tokenizer.vocab_size)
    text = page_of(model, tokenizer, '</title><script>"{{facts}}"')
    small = Page(text)
    assert text.count("</script>") == 5 and "<!--" not in text
    assert [tag for tag, _ in small.tags].count("script") == 5
    assert "&lt;/title&gt;&lt;script&gt;&quot;{{facts}}&quot;" in text
    assert "".join(small.facts["tokenizer"]["pieces"]) == chars + "</script><!--"


def test_the_first_text_has_tokens():
    """TEXT, or what the model writes if it does not know its letters."""
    assert small_page()[1].facts["text"] == TEXT
    _, chinese = small_page(tokenizer=CharTokenizer("山上有一座小屋"))
    assert len(chinese.facts["text"]) == 20 and set(chinese.facts["text"]) <= set("山上有一座小屋")


# --- the command ----------------------------------------------------------------------------------


def test_a_run_becomes_a_page_that_can_be_replaced(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for where in (run, run / "ckpt" / "step_000001"):
        result = tinygpt("page", where)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith(b"wrote love.html: 0.") and b" parameters as int16" in result.stdout
    small = Page(Path("love.html").read_text(encoding="utf-8"))
    assert small.texts["h1"] == "love" and small.facts["weights"] == "int16"
    assert tinygpt("page", run, "--weights", "int8", "--out", "love.html").returncode == 0
    assert Page(Path("love.html").read_text(encoding="utf-8")).facts["weights"] == "int8"
    assert [path.name for path in tmp_path.iterdir()] == ["love.html"]


OUT_FAULTS = {
    "page.txt": "the page is an HTML file; end it in .html",
    "missing/page.html": "there is no folder missing",
    "folder.html": "is a folder",
    "mine.html": "exists and is not a page of this command",
    "dangling.html": "exists and is not a page of this command",
}


@pytest.mark.parametrize("out", OUT_FAULTS)
def test_only_a_page_of_ours_is_replaced(run, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    Path("folder.html").mkdir()
    Path("mine.html").write_text("<!doctype html><p>my diary" + "." * 500 + document.MARK.decode())
    Path("dangling.html").symlink_to("nowhere")
    before = Path("mine.html").read_bytes()
    refused(tinygpt("page", run, "--out", out), OUT_FAULTS[out])
    assert Path("mine.html").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"folder.html", "mine.html", "dangling.html"}


def test_what_is_no_run_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(tinygpt("page", "runs/none"), "runs/none has no checkpoint; give the folder of a run")
    refused(tinygpt("page", run, "--weights", "int4"), "invalid choice: 'int4'")
    refused(tinygpt("page"), "required: run")
    with mock.patch("tinygpt.run.files.create", side_effect=OSError(28, "No space left on device")):
        refused(tinygpt("page", run), "cannot write love.html: No space left on device; give another --out")
    with mock.patch.object(document, "LARGEST", 100_000):
        refused(tinygpt("page", run, "--weights", "float32"), "; --weights int16 gives 0 MB")
        with mock.patch.object(document, "LARGEST", 1000):
            result = refused(tinygpt("page", run), "parameters: as int16 the page would have 0 MB")
            assert "--weights" not in result
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_too_large_is_refused_before_it_is_encoded():
    def parameters(n):
        return SimpleNamespace(num_parameters=lambda: n)

    with pytest.raises(UserError, match="124,439,808 parameters.*332 MB.*--weights int8 gives 166 MB"):
        document.check_size(parameters(124_439_808), "int16")
    with pytest.raises(UserError, match="1,557,611,200 parameters.*8,307 MB.*than 200 MB$"):
        document.check_size(parameters(1_557_611_200), "float32")
    document.check_size(parameters(11_000_000), "float32")


def test_weights_that_no_page_can_have():
    model = sharp_model("reference", vocab_size=characters().vocab_size)
    weight = model.lm_head.weight.data
    weight[0, 0] = 1e6
    with pytest.raises(UserError, match="1e[+]06 is too large for float16; use --weights float32"):
        page_of(model, characters(), "large", "float16")
    weight[0, 0] = np.nan
    with pytest.raises(UserError, match="weights are not numbers"):
        page_of(model, characters(), "broken")


def test_tokenizers_that_no_page_can_have():
    model = sharp_model("reference")
    with pytest.raises(UserError, match="needs a tokenizer of characters or byte pairs"):
        page_of(model, IdTokenizer(23), "ids")
    mask = AddedToken(len(characters().chars), "<mask>", lstrip=True)
    with pytest.raises(UserError, match="'<mask>' of this tokenizer is lstrip"):
        page_of(model, CharTokenizer(characters().chars, added=[mask]), "mask")


# --- its model, under node ------------------------------------------------------------------------

READ = """
const off = data.off ?? [];
const answer = tasks.read({ text: data.text, off });
return { ...answer, logits: reading.logits, looks: answer.ids.map((_, t) => tasks.look({ position: t })) };
"""
MODELS = {  # shapes that are no multiples of four among them
    "reference": dict(architecture="reference"),
    "gpt2": dict(architecture="gpt2"),
    "exact gelu": dict(architecture="gpt2", activation="gelu_exact"),
    "odd sizes": dict(architecture="reference", n_layer=2, n_head=3, n_embd=9, tokenizer=CharTokenizer(TEXT)),
    "more rows than tokens": dict(architecture="gpt2", vocab_size=31),
    "byte pairs": dict(architecture="gpt2", tokenizer=byte_pairs()),
}


def model_with(architecture, activation=None, tokenizer=None, **shape):
    if activation:
        with mock.patch.dict(ARCHITECTURES[architecture], activation=activation):
            return small_page(architecture, tokenizer, **shape)
    return small_page(architecture, tokenizer, **shape)


@pytest.mark.parametrize("name", MODELS)
def test_node_gives_the_same_numbers(name):
    """Logits, loss, what each layer would say, and where the first block's heads look."""
    model, small = model_with(**MODELS[name])
    tokenizer = MODELS[name].get("tokenizer") or characters()
    ids = tokenizer.encode(TEXT)
    found = in_node(small, READ, {"text": TEXT})
    assert found["ids"] == ids.tolist() and found["unknown"] == []
    with no_grad():
        wanted = model(ids[None]).data[0]  # (T, V)
        logits = np.array(found["logits"]).reshape(wanted.shape)
        assert np.abs(logits - wanted).max() < 1e-5 * max(1, np.abs(wanted).max())
        assert found["loss"] == pytest.approx(float(model.loss(ids[None, :-1], ids[None, 1:])), abs=1e-5)
        assert found["full_loss"] == found["loss"]
        for t, look in enumerate(found["looks"]):
            assert np.allclose(look["logits"], logits[t, : tokenizer.vocab_size])
            assert look["lens"][-1][0][0] == found["firsts"][t][0] == int(np.argmax(look["logits"]))
        x = model.transformer.wte(ids[None]) + model.transformer.wpe.weight[: len(ids)]
        check_attention(model, x, found["attention"][0])
        x = model.transformer.h[0](x, None)
        first = model.head(model.transformer.ln_f(x)).data[0, -1]
        p = np.exp(first - first.max())
        p /= p.sum()
        top, share = found["looks"][-1]["lens"][1][0]
        assert top == p[: tokenizer.vocab_size].argmax() and share == pytest.approx(p[top], abs=1e-4)


def check_attention(model, x, found):
    """Compare the first block's weights (H, T, T) with the formula."""
    block, H, T = model.transformer.h[0], model.config.n_head, x.shape[1]
    qkv = block.attn.c_attn(block.ln_1(x)).data[0]  # (T, 3C)
    q, k, _ = qkv.reshape(T, 3, H, -1).transpose(1, 2, 0, 3)  # (T, 3C) -> (3, H, T, D)
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])  # (H, T, T)
    e = np.tril(np.exp(scores))
    assert np.allclose(np.array(found).reshape(H, T, T), e / e.sum(-1, keepdims=True), atol=1e-5)


def test_a_head_that_is_off_adds_nothing():
    model, small = small_page("gpt2")
    ids = characters().encode(TEXT)
    off = [[False, False], [True, False], [False, True]]
    found = in_node(small, READ, {"text": TEXT, "off": off})
    with no_grad():
        whole = float(model.loss(ids[None, :-1], ids[None, 1:]))
        for block, heads in zip(model.transformer.h, off, strict=True):
            rows = block.attn.c_proj.weight.data.reshape(2, 16, 32)  # (C, C) -> (H, D, C)
            rows[np.array(heads)] = 0
        loss = float(model.loss(ids[None, :-1], ids[None, 1:]))
    assert found["loss"] == pytest.approx(loss, abs=1e-5)
    assert found["full_loss"] == pytest.approx(whole, abs=1e-5) and abs(loss - whole) > 0.01


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_cache_changes_nothing(architecture):
    """At temperature 0: the text that `generate` writes, also when the context is full and is halved."""
    model, small = small_page(architecture)
    body = """
    tasks.start({ text: data.text, off: [] });
    return Array.from({ length: 40 }, () => tasks.next({ temperature: 0 }).token);
    """
    wanted = page.document.generate(model, characters().encode(TEXT), 40, temperature=0, when_full="halve")
    assert in_node(small, body, {"text": TEXT}) == list(wanted)


def test_probabilities_are_those_of_sample():
    _, small = small_page()
    logits = np.random.default_rng(0).normal(0, 3, 40).astype(np.float32)
    logits[7] = logits[5]
    asked = [
        dict(temperature=t, top_k=k, top_p=p)
        for t in (0.2, 1, 2)
        for k in (0, 1, 5, 99)
        for p in (0.3, 0.9, 1)
    ]
    body = "return data.asked.map((options) => probabilities(Float32Array.from(data.logits), options));"
    found = in_node(small, body, {"logits": logits.tolist(), "asked": asked})
    for options, p in zip(asked, found, strict=True):
        assert np.allclose(p, probabilities(logits, **options), atol=1e-12), options


def test_drawn_tokens_have_these_probabilities():
    _, small = small_page()
    body = """
    const counts = [0, 0, 0];
    for (let n = 0; n < 20000; n++) counts[choose_token(Float32Array.of(0, 1, 2), data)]++;
    return counts;
    """
    shares = np.array(in_node(small, body, {"temperature": 2, "top_k": 0, "top_p": 1})) / 20000
    assert np.allclose(shares, probabilities(np.array([0.0, 1, 2]), 2), atol=0.02)


TEXTS = [
    TEXT, "", " ", "don't, we'll  go\n\n\n home   \t", "山上有一座小屋，屋里", "x²½٣Ⅷ",
    "a\u3000b\xa0c\x85d\ufeff",
    f"{END}one{END}{END}", "😀 e\u0301 ß", "aaaaaaaaaa" * 9, "the river the  river",
    "\x00\x1c\x7f", "$&(.*)\\", "\ufeffDON'T YOU'The", "a<a>", english()[4000:5000], CHINESE,
]  # fmt: skip
ENCODE = "return data.map((text) => [tokenizer.encode(text), tokenizer.decode(tokenizer.encode(text).ids)]);"


def test_byte_pairs_are_split_and_merged_alike():
    tokenizer = byte_pairs()
    plain = tokenizer.vocab_size - 1  # <|endoftext|>
    # An added token that has the byte of an ordinary one, in front.
    shifted = [(a + 1, b + 1) for a, b in tokenizer.merges]
    first = BPETokenizer(
        [b"a", *tokenizer.pieces], shifted, [AddedToken(0, "<a>"), AddedToken(plain + 1, END)]
    )
    later = AddedToken(plain + 1, "river", normalized=True, special=False)
    pieces = [*tokenizer.pieces, b"river", b"$&(.*)\\"]
    signs = AddedToken(plain + 2, "$&(.*)\\")
    richer = BPETokenizer(pieces, tokenizer.merges, [*tokenizer.added, later, signs])
    for each in (tokenizer, first, richer):
        _, small = small_page("gpt2", each)
        for text, (found, decoded) in zip(TEXTS, in_node(small, ENCODE, TEXTS), strict=True):
            assert found["ids"] == each.encode(text).tolist(), text
            assert decoded == text.replace("<a>", "a" if each is first else "<a>") and found["unknown"] == []


def test_characters_without_a_token_are_left_out_and_named():
    tokenizer = characters("山😀", end=True)
    _, small = small_page("reference", tokenizer)
    texts = ["I 山 YOU😀", "I <3 YOU, E€<", "<|endoftext|>I", ""]
    found = in_node(small, ENCODE, texts)
    assert [each[0]["unknown"] for each in found] == [[], ["<", "3", ",", "€"], [], []]
    assert [each[0]["ids"] for each in found] == [
        tokenizer.encode(text).tolist() for text in ("I 山 YOU😀", "I  YOU E", "<|endoftext|>I", "")
    ]


def test_tokens_are_shown_so_that_they_can_be_seen():
    tokenizer = byte_pairs()
    _, small = small_page("gpt2", tokenizer)
    wanted = {b" ": "␣", b"\n": "↵", b"\t": "⇥", b"a": "a", b"\xe5": "E5", b"\x00": "U+0000"}
    ids = [tokenizer.pieces.index(piece) for piece in wanted]
    assert in_node(small, "return data.map((id) => tokenizer.show(id));", ids) == list(wanted.values())


def test_a_long_text_is_read_from_its_end_and_an_empty_one_from_a_first_token():
    model, small = small_page(tokenizer=characters(end=True))
    tokenizer = characters(end=True)
    body = "return data.map((text) => { const { ids, n_tokens, losses } = tasks.read({ text, off: [] });"
    body += " return [ids, n_tokens, losses.length]; });"
    long, empty = in_node(small, body, [TEXT * 3, ""])
    assert long == [tokenizer.encode(TEXT * 3)[-16:].tolist(), 33, 15]
    assert empty == [[tokenizer.end_ids[0]], 1, 0]


def test_a_trained_run_under_node(run):
    """As it is written by default: logits within 0.001 of those of the run's own model."""
    model, tokenizer, _ = checkpoint.load_for_sampling(run)
    small = Page(page_of(model, tokenizer, "love"))
    found = in_node(small, "tasks.read({ text: data, off: [] }); return reading.logits;", TEXT)
    with no_grad():
        assert np.abs(found - model(tokenizer.encode(TEXT)[None]).data.ravel()).max() < 1e-3
