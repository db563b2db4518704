"use strict";
// Text to token ids and back, as tinygpt/text/tokenizer.py does it. A piece is the bytes of a token, written
// as a string of characters from U+0000 to U+00FF.

const SPACE = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const KINDS = [  // GPT-2's words: contractions; letters, digits or signs, perhaps after a space; white space
  "'(?:[stmd]|ll|ve|re)", " ?\\p{L}+", " ?\\p{N}+", ` ?[^${SPACE}\\p{L}\\p{N}]+`,
  `[${SPACE}]+(?![^${SPACE}])`, `[${SPACE}]+`,
];
const WORD = new RegExp(KINDS.join("|"), "gu");
const VISIBLE = { " ": "␣", "\n": "↵", "\t": "⇥" };
const hex = (number, digits) => number.toString(16).toUpperCase().padStart(digits, "0");
const bytesOf = (text) => Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte));

class Tokenizer {
  // merges: [[a, b], ...] in the order of learning, or null for a tokenizer of characters. added: tokens that
  // stand for their own text: two lists of [text, id], longest first; the second is looked for last.
  constructor({ pieces, merges, added, end_ids, start_id }) {
    Object.assign(this, { pieces, added, end_ids, start_id });
    this.ids = new Map();  // piece -> id; an added token may have the bytes of an ordinary one
    const is_added = new Set(added.flat().map(([, id]) => id));
    pieces.forEach((piece, id) => is_added.has(id) || this.ids.has(piece) || this.ids.set(piece, id));
    this.merges = merges && new Map(merges.map(([a, b], rank) => [
      a * pieces.length + b, { a, b, rank, id: this.ids.get(pieces[a] + pieces[b]) },
    ]));
  }

  encode(text) {  // {ids, unknown: the characters that have no token and are left out}
    const ids = [], unknown = new Set();
    for (const part of this.split(text)) {
      if (typeof part === "number") ids.push(part);
      else if (this.merges) for (const [word] of part.matchAll(WORD)) ids.push(...this.mergeWord(word));
      else for (const character of part) {
        const id = this.ids.get(bytesOf(character).join(""));
        if (id === undefined) unknown.add(character); else ids.push(id);
      }
    }
    return { ids, unknown: [...unknown] };
  }

  split(text) {  // the parts of a text in order: added tokens as their ids, the rest as strings
    let parts = [text];
    for (const tokens of this.added.filter((list) => list.length)) {
      const texts = tokens.map(([content]) => content.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
      const pattern = new RegExp(`(${texts.join("|")})`), by_text = new Map(tokens);
      parts = parts.flatMap((part) => (typeof part === "number" ? [part]
        : part.split(pattern).map((piece, i) => (i % 2 ? by_text.get(piece) : piece))));
    }
    return parts;
  }

  mergeWord(word) {  // as long as there is a pair to merge: the one that was learnt first, wherever it stands
    let ids = bytesOf(word).map((byte) => this.ids.get(byte));
    for (;;) {
      let first = null;
      for (let i = 0; i + 1 < ids.length; i++) {
        const merge = this.merges.get(ids[i] * this.pieces.length + ids[i + 1]);
        if (merge && (!first || merge.rank < first.rank)) first = merge;
      }
      if (!first) return ids;
      const merged = [];
      for (let i = 0; i < ids.length; i++) {
        const is_pair = ids[i] === first.a && ids[i + 1] === first.b;
        merged.push(is_pair ? first.id : ids[i]);
        if (is_pair) i++;
      }
      ids = merged;
    }
  }

  decode(ids) {
    const bytes = Uint8Array.from(ids.map((id) => this.pieces[id]).join(""), (byte) => byte.charCodeAt(0));
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
  }

  visible(text) {  // with a sign for what cannot be seen
    return text.replace(/[\p{C}\p{Z}]/gu, (it) => VISIBLE[it] ?? `U+${hex(it.codePointAt(0), 4)}`);
  }

  show(id) {  // a token for the eye; its bytes in hexadecimal digits if they are only a part of a character
    const text = this.decode([id]), codes = Array.from(this.pieces[id], (byte) => hex(byte.charCodeAt(0), 2));
    if (text.includes("\ufffd")) return codes.join(" ");
    return this.visible(text);
  }
}
