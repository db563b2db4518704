"use strict";
// The GPT of tinygpt/model.py, under the same names, for one text at a time. Read from Linear on.
// Shapes: T positions, C channels, V tokens in the vocabulary, H heads of D channels. Arrays are flat:
// element (t, c) of an array (T, C) is at t * C + c.

const erf = (x) => {  // to 1.5e-7: Abramowitz and Stegun 1964, 7.1.26
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const sum = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return Math.sign(x) * (1 - sum * Math.exp(-x * x));
};
const ACTIVATIONS = {
  none: (x) => x,
  relu: (x) => Math.max(x, 0),
  gelu: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  gelu_exact: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
};

class Linear {
  // The weight is (n_out, n_in) here, (n_in, n_out) in model.py: an output reads a row, without jumps.
  constructor(weights, name, n_in, n_out, activation = "none") {
    this.weight = weights[`${name}.weight`];
    this.bias = weights[`${name}.bias`] ?? new Float32Array(n_out);
    Object.assign(this, { n_in, n_out, activation: ACTIVATIONS[activation] });
  }

  call(x) {  // (T, n_in) -> (T, n_out)
    const { weight, bias, n_in, n_out, activation } = this, last = n_out - 1;
    const T = x.length / n_in, y = new Float32Array(T * n_out);
    for (let j = 0; j < n_out; j += 4) {  // four outputs at a time: each number of x is read once for them
      const j1 = Math.min(j + 1, last), j2 = Math.min(j + 2, last), j3 = Math.min(j + 3, last);
      const w0 = j * n_in, w1 = j1 * n_in, w2 = j2 * n_in, w3 = j3 * n_in;
      for (let t = 0; t < T; t++) {
        let sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
        for (let i = 0, at = t * n_in; i < n_in; i++) {
          const value = x[at + i];
          sum0 += value * weight[w0 + i];
          sum1 += value * weight[w1 + i];
          sum2 += value * weight[w2 + i];
          sum3 += value * weight[w3 + i];
        }
        const row = t * n_out;
        y[row + j] = activation(sum0 + bias[j]);
        y[row + j1] = activation(sum1 + bias[j1]);
        y[row + j2] = activation(sum2 + bias[j2]);
        y[row + j3] = activation(sum3 + bias[j3]);
      }
    }
    return y;
  }
}

class LayerNorm {
  constructor(weights, name) {
    this.weight = weights[`${name}.weight`];
    this.bias = weights[`${name}.bias`];
  }

  call(x) {  // (T, C) -> (T, C)
    const C = this.weight.length, y = new Float32Array(x.length);
    for (let at = 0; at < x.length; at += C) {
      const row = x.subarray(at, at + C), mean = sum_of(row) / C;
      const variance = sum_of(row.map((value) => (value - mean) ** 2)) / C;
      const rstd = 1 / Math.sqrt(variance + 1e-5);
      for (let c = 0; c < C; c++) y[at + c] = (row[c] - mean) * rstd * this.weight[c] + this.bias[c];
    }
    return y;
  }
}

class CausalSelfAttention {
  constructor(weights, name, { n_embd, n_head, scores_over_channels }) {
    this.divisor = Math.sqrt(scores_over_channels ? n_embd : n_embd / n_head);  // of the scores
    this.c_attn = new Linear(weights, `${name}.c_attn`, n_embd, 3 * n_embd);  // q, k and v in one product
    this.c_proj = new Linear(weights, `${name}.c_proj`, n_embd, n_embd);
    this.n_head = n_head;
  }

  // cache: of_block. off: a boolean for each head; the result of one that is off is 0. The weights (H, T, T)
  // are added to `seen`, a list, if there is one; then the cache must have been empty.
  call(x, cache, off, seen) {
    const { n_head: H } = this, C = this.c_attn.n_in, D = C / H, T = x.length / C;
    const qkv = this.c_attn.call(x), y = new Float32Array(T * C);  // (T, C) -> (T, 3C)
    for (let t = 0; t < T; t++) {
      cache.keys.set(qkv.subarray((3 * t + 1) * C, (3 * t + 2) * C), (cache.start + t) * C);
      cache.values.set(qkv.subarray((3 * t + 2) * C, (3 * t + 3) * C), (cache.start + t) * C);
    }
    const attention = seen && new Float32Array(H * T * T);
    for (let h = 0; h < H; h++) {
      for (let t = 0; t < T; t++) {
        const weights = this.weights(qkv.subarray(3 * t * C + h * D, 3 * t * C + (h + 1) * D), cache, h, t);
        if (attention) attention.set(weights, (h * T + t) * T);
        if (off[h]) continue;
        for (let s = 0, out = t * C + h * D; s < weights.length; s++) {
          for (let d = 0, at = s * C + h * D; d < D; d++) y[out + d] += weights[s] * cache.values[at + d];
        }
      }
    }
    if (attention) seen.push(attention);
    return this.c_proj.call(y);
  }

  weights(q, cache, h, t) {  // how much of each position up to its own the query q (D) of head h takes
    const D = q.length, C = D * this.n_head, scores = new Float32Array(cache.start + t + 1);
    for (let s = 0; s < scores.length; s++) {
      let sum = 0;
      for (let d = 0, at = s * C + h * D; d < D; d++) sum += q[d] * cache.keys[at + d];
      scores[s] = sum / this.divisor;
    }
    return softmax(scores);
  }
}

class MLP {
  constructor(weights, name, { n_embd, activation }) {
    this.c_fc = new Linear(weights, `${name}.c_fc`, n_embd, 4 * n_embd, activation);
    this.c_proj = new Linear(weights, `${name}.c_proj`, 4 * n_embd, n_embd);
  }

  call(x) {  // (T, C) -> (T, 4C) -> (T, C)
    return this.c_proj.call(this.c_fc.call(x));
  }
}

class Block {  // communication (attention), then computation (MLP); each adds to the residual stream
  constructor(weights, name, config) {
    this.ln_1 = new LayerNorm(weights, `${name}.ln_1`);
    this.attn = new CausalSelfAttention(weights, `${name}.attn`, config);
    this.ln_2 = new LayerNorm(weights, `${name}.ln_2`);
    this.mlp = new MLP(weights, `${name}.mlp`, config);
  }

  call(x, cache, off, seen) {
    x = add(x, this.attn.call(this.ln_1.call(x), cache, off, seen));
    return add(x, this.mlp.call(this.ln_2.call(x)));
  }
}

class Transformer {
  constructor(weights, config) {
    this.n_embd = config.n_embd;
    this.wte = weights["transformer.wte.weight"];
    this.wpe = weights["transformer.wpe.weight"];
    this.h = Array.from(Array(config.n_layer), (_, i) => new Block(weights, `transformer.h.${i}`, config));
    this.ln_f = new LayerNorm(weights, "transformer.ln_f");
  }

  // The last hidden states (T, C) of T ids that follow the positions in a cache. off: the heads of each block
  // that are off. watch, for an empty cache, gets `hidden`, (T, C) before the first and after each block, and
  // `attention`, (H, T, T) of each block.
  extend(ids, cache, off = [], watch = null) {
    const C = this.n_embd, row = (table, i) => table.subarray(i * C, (i + 1) * C);
    let x = new Float32Array(ids.length * C);
    ids.forEach((id, t) => x.set(add(row(this.wte, id), row(this.wpe, cache.length + t)), t * C));
    watch?.hidden.push(x);
    this.h.forEach((block, i) => {
      x = block.call(x, cache.of_block(i), off[i] ?? [], watch?.attention);
      watch?.hidden.push(x);
    });
    cache.length += ids.length;
    return this.ln_f.call(x);
  }
}

class GPT {
  constructor(config, weights) {
    this.config = config;
    this.transformer = new Transformer(weights, config);
    const tied = { "lm_head.weight": this.transformer.wte };
    this.lm_head = new Linear(config.tied_head ? tied : weights, "lm_head", config.n_embd, config.vocab_size);
  }

  head(x) {  // (T, C) -> logits (T, V)
    return this.lm_head.call(x);
  }
}

class KeyValueCache {  // the keys and values (positions, C) of each block for the first `length` positions
  constructor({ n_layer, n_embd, block_size }) {
    const room = () => Array.from({ length: n_layer }, () => new Float32Array(block_size * n_embd));
    Object.assign(this, { keys: room(), values: room(), length: 0 });
  }

  of_block(i) {
    return { keys: this.keys[i], values: this.values[i], start: this.length };
  }
}

// What a token is drawn from, as `probabilities` in tinygpt/generate.py. Temperature 0: the most likely one.
function probabilities(logits, { temperature = 1, top_k = 0, top_p = 1 }) {
  const first = argmax(logits);
  if (temperature === 0) return new Float64Array(logits.length).fill(1, first, first + 1);
  const scaled = Float64Array.from(logits, (x) => (x - logits[first]) / temperature);
  const least = top_k > 0 && top_k < scaled.length ? scaled.slice().sort().at(-top_k) : -Infinity;
  const p = softmax(scaled.map((x) => (x < least ? -Infinity : x)));
  if (top_p >= 1) return p;
  let before = 0;  // what all likelier tokens have together
  for (const i of best(p, p.length)) {
    const share = p[i];
    if (before >= top_p) p[i] = 0;
    before += share;
  }
  const kept = sum_of(p);
  return p.map((share) => share / kept);
}

function choose_token(logits, options) {
  const p = probabilities(logits, options);
  let rest = Math.random();
  const token = p.findIndex((share) => (rest -= share) < 0);
  return token < 0 ? argmax(p) : token;  // by rounding, all shares together may be less than 1
}

// The places of the n largest numbers, the largest first.
const best = (x, n) => Array.from(x.keys()).sort((i, j) => x[j] - x[i] || i - j).slice(0, n);
const argmax = (x) => x.reduce((top, value, i) => (value > x[top] ? i : top), 0);
const add = (x, y) => x.map((value, i) => value + y[i]);
const sum_of = (x) => x.reduce((a, b) => a + b, 0);

function softmax(x) {
  const max = x.reduce((a, b) => Math.max(a, b), -Infinity), e = x.map((value) => Math.exp(value - max));
  const sum = sum_of(e);
  return e.map((value) => value / sum);
}
