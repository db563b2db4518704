"use strict";
// The part of the page that computes. It has a thread of its own, a Web Worker, so that the page stays alive.

const MOST_TO_READ = 256;  // tokens: a text's pictures of attention take H * T * T numbers in each block
let model, tokenizer, reading, writer;

function read_weights(base64, tensors, kind) {  // {name: Float32Array}; tinygpt/page/weights.py writes them
  const binary = atob(base64), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  let end = 0;
  const take = (type, n) => new type(bytes.slice(end, end += n * type.BYTES_PER_ELEMENT).buffer);
  const read = (rows, columns) => {
    if (kind === "float32" || !columns) return take(Float32Array, rows * (columns ?? 1));
    const scales = kind === "float16" ? null : take(Float32Array, rows);
    const type = { float16: Uint16Array, int16: Int16Array, int8: Int8Array }[kind];
    const x = new Float32Array(take(type, rows * columns));
    for (let i = 0; i < x.length; i++) x[i] = scales ? x[i] * scales[Math.floor(i / columns)] : HALVES[x[i]];
    return x;
  };
  return Object.fromEntries(tensors.map(([name, ...shape]) => [name, read(...shape)]));
}

const HALVES = Float32Array.from({ length: 2 ** 16 }, (_, bits) => {  // what the bits of a float16 stand for
  const exponent = (bits >> 10) & 31, fraction = (bits & 1023) / 1024, sign = bits >> 15 ? -1 : 1;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
});

const row = (x, t, n) => x.subarray(t * n, (t + 1) * n);
const ids_of = (text) => {  // of an empty text: one token with which a text may begin
  const { ids, unknown } = tokenizer.encode(text);
  return { ids: ids.length ? ids : [tokenizer.start_id], unknown };
};

// Of a text: logits (T, V), losses (T - 1) in nats, their mean, and the likeliest next tokens, [id, share].
function predict(ids, off, watch) {
  const { vocab_size: V } = model.config, losses = [], firsts = [];
  const logits = model.head(model.transformer.extend(ids, new KeyValueCache(model.config), off, watch));
  ids.forEach((_, t) => {
    const p = softmax(Float64Array.from(row(logits, t, V)));
    const first = argmax(p.subarray(0, tokenizer.pieces.length));
    firsts.push([first, p[first]]);
    if (t + 1 < ids.length) losses.push(-Math.log(p[ids[t + 1]]));
  });
  return { logits, losses, firsts, loss: sum_of(losses) / losses.length };
}

const tasks = {
  load({ facts, base64 }) {
    model = new GPT(facts.config, read_weights(base64, facts.tensors, facts.weights));
    tokenizer = new Tokenizer(facts.tokenizer);
  },

  read({ text, off }) {  // all about a text: its end if it is long
    const { ids: all, unknown } = ids_of(text);
    const ids = all.slice(-Math.min(model.config.block_size, MOST_TO_READ));
    reading = { ids, hidden: [], attention: [] };
    const { logits, ...predictions } = predict(ids, off, reading), { attention } = reading;
    reading.logits = logits;
    const full_loss = off.flat().includes(true) ? predict(ids, []).loss : predictions.loss;
    return { ids, unknown, n_tokens: all.length, attention, full_loss, ...predictions };
  },

  look({ position }) {  // the logits after a position, and the three likeliest [id, share] of each layer
    const { n_embd: C, vocab_size: V } = model.config, n = tokenizer.pieces.length;
    const top = (logits) => {
      const p = softmax(logits);
      return best(p.subarray(0, n), 3).map((id) => [id, p[id]]);
    };
    const lens = reading.hidden.map((x) => top(model.head(model.transformer.ln_f.call(row(x, position, C)))));
    return { logits: row(reading.logits, position, V).slice(0, n), lens };
  },

  start({ text, off }) {  // a text to go on with
    const { ids } = ids_of(text);
    writer = { ids: ids.slice(-model.config.block_size), off, cache: new KeyValueCache(model.config) };
  },

  next(options) {  // its next token. When the context is full, its older half is forgotten.
    const { ids, cache, off } = writer, { block_size, n_embd: C } = model.config;
    if (ids.length > block_size) {
      ids.splice(0, ids.length - Math.floor(block_size / 2) - 1);
      cache.length = 0;
    }
    const x = model.transformer.extend(ids.slice(cache.length), cache, off);
    const logits = model.head(x.subarray(-C)).subarray(0, tokenizer.pieces.length);
    ids.push(choose_token(logits, options));
    return { token: ids.at(-1), is_end: tokenizer.end_ids.includes(ids.at(-1)) };
  },
};

onmessage = ({ data: { task, ...message } }) => postMessage(tasks[task](message));
