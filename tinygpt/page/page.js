"use strict";
// What is seen. Texts reach the page as text only, never as HTML.

const MOST_TO_WRITE = 5000;  // tokens
const $ = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const percent = (share) => (  // with spaces that do not break
  share < 0.001 ? "<\u00a00.1\u00a0%" : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}\u00a0%`);
const end_of = (text) => (text.length > 40 ? `…${Array.from(text).slice(-40).join("")}` : text);
const named = ([id, share]) => [make("code", {}, tokenizer.show(id)), ` ${percent(share)}`];
const facts = JSON.parse($("facts").textContent), tokenizer = new Tokenizer(facts.tokenizer);
const { n_layer, n_head } = facts.config, each_head = [...Array(n_layer * n_head).keys()];
const off = Array.from({ length: n_layer }, () => Array(n_head).fill(false));
let reading, position, logits, head = 0, is_reading = false, is_changed = false;
let draft = null, turn = 0, is_writing = false;  // the text that the model writes, and whose turn it is

// --- the worker: it answers in the order in which it is asked ---
const source = [$("model"), $("worker")].map((script) => script.textContent).join("\n");
const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" }))), waiting = [];
const ask = (task, message) => new Promise((resolve) => {
  waiting.push(resolve);
  worker.postMessage({ task, ...message });
});
worker.onmessage = ({ data }) => waiting.shift()(data);
worker.onerror = ({ message }) => {
  $("note").textContent = `The model cannot go on (${message}). Load the page again.`;
};

// --- the text and its tokens ---
async function read() {  // if the text changes meanwhile, once more
  is_changed = true;
  if (is_reading) return;
  is_reading = true;
  while (is_changed) {
    is_changed = false;
    reading = await ask("read", { text: $("text").value, off });
  }
  is_reading = false;
  show_reading();
}

function show_reading() {
  const { ids, unknown, n_tokens, losses, loss, full_loss, firsts } = reading, notes = [];
  if (unknown.length) notes.push(`Left out, without a token: ${tokenizer.visible(unknown.join(""))}`);
  if (n_tokens > ids.length) notes.push(`Of ${n_tokens} tokens only the last ${ids.length} are read.`);
  if (!$("text").value) notes.push("There is no text yet: the model starts from one token.");
  $("note").textContent = notes.join(" ");
  $("tokens").replaceChildren(...ids.map((id, t) => make("span", {
    className: "token", title: `token ${id}`, onclick: () => show_position(t),
  }, tokenizer.show(id))));
  const change = loss - full_loss, n_off = off.flat().filter(Boolean).length;
  $("loss").textContent = losses.length === 0 ? "The loss needs at least two tokens."
    : `Loss of this text: ${loss.toFixed(3)} nats a token.` + (n_off === 0 ? " All heads are on."
      : ` With all heads on: ${full_loss.toFixed(3)}. Switched off: ${n_off}; that changes the loss by ${
        change < 0 ? "−" : "+"}${Math.abs(change).toFixed(3)}.`);
  $("prefixes").replaceChildren(...ids.map((_, t) => make("tr", {},
    make("td", {}, make("code", {}, tokenizer.visible(end_of(tokenizer.decode(ids.slice(0, t + 1)))))),
    make("td", {}, t + 1 < ids.length ? make("code", {}, tokenizer.show(ids[t + 1])) : "?"),
    make("td", {}, t + 1 < ids.length ? percent(Math.exp(-losses[t])) : ""),
    make("td", {}, ...named(firsts[t])))));
  each_head.forEach(show_small);
  $("position").max = ids.length;
  show_position(ids.length - 1);
}

async function show_position(t) {
  position = t;
  $("position").value = t + 1;
  $("at").textContent = `${t + 1} of ${reading.ids.length}: ${tokenizer.show(reading.ids[t])}`;
  [...$("tokens").children].forEach((token, i) => token.classList.toggle("chosen", i === t));
  each_head.forEach(name_button);
  show_head(head);
  const answer = await ask("look", { position: t });
  if (t !== position) return;
  logits = answer.logits;
  $("layers").replaceChildren(...answer.lens.map((top, i) => make("tr", {},
    make("th", { scope: "row" }, i ? `after block ${i}` : "before block 1"),
    ...top.map((one) => make("td", {}, ...named(one))))));
  show_distribution();
}

// --- what comes next ---
const options = () => ({
  temperature: +$("temperature").value, top_k: +$("top_k").value, top_p: +$("top_p").value,
});

function show_bars(list, rows) {  // rows: [text, share]
  list.replaceChildren(...rows.map(([text, share]) => {
    const bar = make("span", { className: "bar" });
    bar.style.width = `${100 * share}%`;
    return make("li", {}, make("code", { title: text }, text), make("span", { className: "track" }, bar),
      make("span", {}, percent(share)));
  }));
}

function show_distribution() {
  const { temperature, top_k, top_p } = options(), p = probabilities(logits, options());
  $("temperature_now").textContent = temperature ? temperature.toFixed(2) : "0: always the most likely";
  $("top_k_now").textContent = top_k || "all";
  $("top_p_now").textContent = top_p < 1 ? top_p.toFixed(2) : "all";
  show_bars($("next"), best(p, 10).filter((id) => p[id] > 0).map((id) => [tokenizer.show(id), p[id]]));
  $("possible").textContent = `Tokens that can come: ${sum_of(p.map(Math.sign))} of ${p.length}.`;
}

// --- writing ---
async function write_token() {  // false if the text ended, or is not wanted any more
  const mine = (draft ??= { ids: [] });
  if (!mine.is_started) await ask("start", { text: $("text").value, off });
  mine.is_started = true;
  const { token, is_end } = await ask("next", options());
  if (mine !== draft) return false;
  if (is_end) $("speed").textContent = "The model ended its text here.";
  else mine.ids.push(token);
  $("written").textContent = tokenizer.decode(mine.ids).replace(/\ufffd+$/, "");  // no unfinished character
  return !is_end;
}

async function write() {
  const started = performance.now(), mine = ++turn;
  set_writing(!is_writing);
  for (let n = 1; is_writing && mine === turn && n <= MOST_TO_WRITE && await write_token(); n++) {
    const speed = 1000 * n / (performance.now() - started);
    $("speed").textContent = `${draft.ids.length} tokens, ${speed.toFixed(0)} a second`;
  }
  if (mine === turn) set_writing(false);
}

function set_writing(yes) {
  is_writing = yes;
  $("write").textContent = yes ? "Stop" : "Write";
}

function forget() {
  draft = null;
  turn++;
  set_writing(false);
  $("prompt").textContent = $("text").value;
  $("written").textContent = $("speed").textContent = "";
}

// --- where the heads look ---
const weights_of = (i) => {  // (T, T) of head number i, counted through all blocks
  const n = reading.ids.length ** 2;
  return reading.attention[Math.floor(i / n_head)].subarray((i % n_head) * n, (i % n_head + 1) * n);
};
const is_off = (i) => off[Math.floor(i / n_head)][i % n_head];
const name_of = (i) => `Block ${Math.floor(i / n_head) + 1}, head ${i % n_head + 1}`;

function show_small(i) {  // a pixel for each pair of positions, the less transparent the larger the weight
  const T = reading.ids.length, canvas = $("heads").children[i].firstChild;
  canvas.width = canvas.height = T;
  const context = canvas.getContext("2d"), image = context.createImageData(T, T);
  weights_of(i).forEach((weight, at) => {
    image.data.set([52, 132, 214, 255 * Math.sqrt(weight)], 4 * at);
  });
  context.putImageData(image, 0, 0);
  $("heads").children[i].classList.toggle("off", is_off(i));
}

const seen_by = (i) => weights_of(i).slice(position * reading.ids.length).subarray(0, position + 1);
const name_at = (t) => `${t + 1}: ${tokenizer.show(reading.ids[t])}`;

function name_button(i) {  // what the picture says about the chosen token
  const seen = seen_by(i), t = argmax(seen), state = is_off(i) ? " (off)" : "";
  const button = $("heads").children[i], most = `${name_at(t)}, ${percent(seen[t])}`;
  button.title = button.ariaLabel = `${name_of(i)}${state}: from ${name_at(position)} mostly to ${most}`;
}

function show_head(i) {
  head = i;
  const { ids } = reading, T = ids.length, seen = seen_by(i);
  each_head.forEach((k) => $("heads").children[k].setAttribute("aria-pressed", k === i));
  $("head_name").textContent = `${name_of(i)}${is_off(i) ? " (off)" : ""}`;
  $("head_on").checked = !is_off(i);
  show_bars($("seen"), best(seen, 5).map((t) => [name_at(t), seen[t]]));
  [...$("tokens").children].forEach((token, t) => {
    token.style.setProperty("--seen", `${100 * (seen[t] ?? 0)}%`);
  });
  draw_large(i, T);
}

function draw_large(i, T) {
  const canvas = $("large"), context = canvas.getContext("2d"), size = canvas.width;
  const margin = T <= 32 ? 80 : 10;  // room for the tokens, if they can be read
  const cell = (size - margin) / T, font = Math.min(cell * 0.8, 22);
  context.clearRect(0, 0, size, size);
  context.imageSmoothingEnabled = false;
  context.drawImage($("heads").children[i].firstChild, margin, margin, size - margin, size - margin);
  context.fillStyle = context.strokeStyle = getComputedStyle(canvas).color;
  context.lineWidth = 1;
  context.strokeRect(margin, margin, size - margin, size - margin);
  context.lineWidth = 4;
  context.strokeRect(margin, margin + position * cell, size - margin, cell);
  context.font = `${font}px monospace`;
  if (T <= 32) reading.ids.forEach((id, t) => {
    const middle = margin + (t + 0.5) * cell + font / 3;
    context.fillText(tokenizer.show(id), 2, middle, margin - 6);
    context.fillText(tokenizer.show(id), middle - font * 0.7, margin - 8, cell);
  });
}

// --- the start ---
each_head.forEach((i) => $("heads").append(make("button", {
  type: "button", onclick: () => show_head(i),
}, make("canvas"), `${Math.floor(i / n_head) + 1}.${i % n_head + 1}`)));
$("heads").style.setProperty("--n-head", n_head);
$("top_k").max = Math.min(tokenizer.pieces.length, 100);
for (const id of ["temperature", "top_k", "top_p"]) $(id).oninput = show_distribution;
$("position").oninput = () => show_position($("position").value - 1);
$("text").oninput = () => (forget(), read());
$("write").onclick = write;
$("one").onclick = write_token;
$("again").onclick = forget;
$("head_on").onchange = () => {
  off[Math.floor(head / n_head)][head % n_head] = !$("head_on").checked;
  forget();
  read();
};
matchMedia("(prefers-color-scheme: dark)").onchange = () => show_head(head);
$("text").value = facts.text;
forget();
ask("load", { facts, base64: $("weights").textContent }).then(() => {
  $("weights").remove();
  document.body.classList.remove("waiting");
  return read();
});
