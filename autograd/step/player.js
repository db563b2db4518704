"use strict";
// The player of a film. Names are those of film.py. Texts reach the page as text only, never as HTML.

const PAUSE = 1500;  // milliseconds between steps while it plays
const HINT = "Point at a picture, or focus it, to read its numbers.";
const SMALLEST = 0.75;  // to fit into its pane a graph may shrink to this part of its size
const ALL = "*";  // the view in which every module is open
const $ = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const range = (n) => [...Array(n).keys()];
const { films, sources, arrays } = JSON.parse($("film").textContent);
const graphs = [...document.querySelectorAll(".view")].map(graph_in);

let film = films[0], view = film.first_view, step = 0;  // step: a place in film.steps
let outer = [];  // the films around this one: {film, view, step}
let timer = null, follows = false;  // follows: opens the modules that a gradient passes

// --- the graph of a view, which page.py drew ---
function graph_in(root) {
  const boxes = [...root.querySelectorAll(".box")], box_of = new Map();
  for (const box of boxes) for (const number of box.dataset.nodes.split(" ")) box_of.set(Number(number), box);
  const edges = [...root.querySelectorAll(".edge")], film = films[root.dataset.film];
  return { root, film, name: root.dataset.view, boxes, box_of, edges };
}

const graph = () => graphs.find((each) => each.film === film && each.name === view);
const box_of = (number) => graph().box_of.get(number);
const node_of = (number) => film.nodes[number];
const result_of = (box) => node_of(Number(box.dataset.result));
const edge_of = ({ node, to }) => [to, node].map((number) => graph().boxes.indexOf(box_of(number))).join("-");
const is_backward = ({ kind }) => kind === "backward";

// --- moving through the steps that do not stay inside a folded module ---
function is_seen(i) {
  const { node, to } = film.steps[i], following = film.steps[i + 1];
  if (follows) return true;
  if (is_backward(film.steps[i])) return box_of(node) !== box_of(to);
  return !following || is_backward(following) || box_of(node) !== box_of(following.node);
}

const seen_steps = () => range(film.steps.length).filter(is_seen);
const place_in = (seen) => Math.max(seen.findLastIndex((i) => i <= step), 0);

function go(i) {
  step = i;
  if (follows) view = node_of(film.steps[i].node).view;
  show();
}

function move(by) {
  const seen = seen_steps();
  go(seen[Math.min(Math.max(place_in(seen) + by, 0), seen.length - 1)]);
}

function visit(number) {  // the step in which a node has its turn, or gets its gradient
  const { kind } = film.steps[step], first = (test) => film.steps.findIndex(test);
  const turn = first((each) => each.kind === kind && (each.node === number || each.nodes?.includes(number)));
  const any = first(({ node, to }) => node === number || to === number);
  if (any >= 0) go(turn >= 0 ? turn : any);
}

function play(on) {
  clearInterval(timer);
  const is_at_end = () => step === seen_steps().at(-1);
  timer = on ? setInterval(() => (is_at_end() ? play(false) : move(1)), PAUSE) : null;
  if (on && is_at_end()) move(-Infinity);
  document.body.classList.toggle("playing", on);
  $("play").ariaLabel = on ? "Pause" : "Play";
}

// --- opening and closing: modules, and fused operations ---
function open_view(name) {  // somebody wants this one, so the gradient's way no longer chooses
  follows = false;
  view = name;
  const seen = seen_steps();
  go(seen[place_in(seen)]);
}

function open_inside(number) {  // the film inside an operation
  if (film.steps[step].node !== number) visit(number);
  const starts = is_backward(film.steps[step]);
  outer.push({ film, view, step });
  film = films[node_of(number).inside];
  view = film.first_view;
  go(starts ? film.steps.findIndex(is_backward) : 0);
}

function close_inside() {
  ({ film, view, step } = outer.pop());
  show();
}

function open(box) {
  if (box.dataset.module) open_view(box.dataset.module);
  else if (result_of(box).inside !== null) open_inside(result_of(box).id);
}

const outside_of = (name) => (name === ALL ? "" : film.views[name].at(-2) ?? "");

function close() {  // the innermost that is open
  if (film.views[view].length) open_view(outside_of(view));
  else if (outer.length) close_inside();
}

// --- what is seen ---
function show() {
  for (const each of graphs) each.root.hidden = each !== graph();
  show_controls();
  show_what_is_open();
  show_graph();
  $("figures").replaceChildren(...numbers_of(film.steps[step]));
  $("reading").textContent = $("figures").querySelector(".map") ? HINT : "";
  show_source(film.steps[step]);
}

function show_controls() {
  const seen = seen_steps(), place = place_in(seen), { kind, why } = film.steps[step];
  document.body.classList.toggle("backward", kind === "backward");
  $("slider").max = seen.length - 1;
  $("slider").value = place;
  $("count").textContent = $("slider").ariaValueText = `step ${place + 1} of ${seen.length}`;
  $("direction").textContent = kind;
  $("sentence").textContent = why;
  $("first").disabled = $("back").disabled = place === 0;
  $("last").disabled = $("next").disabled = place === seen.length - 1;
}

function show_what_is_open() {
  const button = (text, onclick) => make("button", { type: "button", onclick }, text);
  const parts = outer.map((around) => (
    button(`inside ${around.film.nodes[around.film.steps[around.step].node].called} ✕`, close_inside)));
  if (ALL in film.views) {
    const opened = view === ALL ? [] : film.views[view];
    const tail = (name) => name.slice(outside_of(name) ? outside_of(name).length + 1 : 0);
    parts.push(...opened.map((name) => button(`${tail(name)} ✕`, () => open_view(outside_of(name)))));
    const [text, other] = view === ALL ? ["fold all", ""] : ["open all", ALL];
    parts.push(button(text, () => open_view(other)));
    const onchange = ({ target }) => { follows = target.checked; go(step); };
    const box = make("input", { type: "checkbox", checked: follows, onchange });
    const title = "Stop at every step, and open the module that it is in";
    parts.push(make("label", { title }, box, "follow into modules"));
  }
  $("open").replaceChildren(...parts);
  $("open").hidden = parts.length === 0;
  $("open_keys").hidden = !graph().root.querySelector(".opener") && !outer.length;
}

function gradient_of(number) {  // of a node at this step; undefined if there is none yet
  const handed = film.steps.slice(0, step + 1).filter(is_backward);
  const last = handed.findLast(({ to }) => to === number);
  return arrays[last ? last.total : handed[0]?.node === number ? handed[0].incoming : -1];
}

function gradient_text(array) {
  if (!array) return "no gradient yet";
  return is_single(array) ? `grad ${digits(array.min)}` : `grad rms ${digits(array.rms, 2)}`;
}

function show_graph() {
  const now = film.steps[step], lit = box_of(now.node), target = is_backward(now) ? box_of(now.to) : null;
  const newest = is_backward(now) ? Infinity : Math.max(now.node, ...now.nodes);  // that was computed
  for (const box of graph().boxes) {
    const { id, kind } = result_of(box), array = gradient_of(id), text = box.querySelector(".gradient");
    box.classList.toggle("lit", box === lit);
    box.classList.toggle("target", box === target && box !== lit);
    box.classList.toggle("unknown", kind === "operation" && id > newest);
    box.classList.toggle("none", !array);
    box.tabIndex = box === lit ? 0 : -1;
    box.ariaCurrent = box === lit ? "step" : null;
    if (text) text.textContent = gradient_text(array);
  }
  const gone = new Set(film.steps.slice(0, step).filter(is_backward).map(edge_of));
  for (const edge of graph().edges) {
    edge.classList.toggle("travels", is_backward(now) && edge.dataset.edge === edge_of(now));
    edge.classList.toggle("gone", gone.has(edge.dataset.edge));
  }
  fit_graph();
  for (const box of [target, lit]) if (box) bring_into_sight(box);
}

function fit_graph() {  // a little smaller, if it fits then
  const pane = $("views"), picture = graph().root.firstChild, { width, height } = picture.viewBox.baseVal;
  const parts = [(pane.clientWidth - 8) / width, (pane.clientHeight - 8) / height];
  picture.style.width = `${width * Math.min(1, ...parts.filter((part) => part > SMALLEST))}px`;
}

function bring_into_sight(box) {  // inside the pane only, never the page
  const pane = $("views"), around = pane.getBoundingClientRect(), place = box.getBoundingClientRect();
  if (place.top < around.top + 8 || place.bottom > around.bottom - 8) {
    pane.scrollTop += (place.top + place.bottom - around.top - around.bottom) / 2;
  }
  if (place.left < around.left + 8 || place.right > around.right - 8) {
    pane.scrollLeft += (place.left + place.right - around.left - around.right) / 2;
  }
}

// --- the numbers of a step ---
function numbers_of(now) {
  const node = node_of(now.node), inside = films[node.inside];
  const facts = [node.module, shape_text(node.shape), node.dtype, node.options].filter(Boolean).join(" · ");
  const parts = [
    make("h2", {}, node.label && node.label !== node.name ? `${node.label} = ${node.name}` : node.called),
    note(facts),
  ];
  if (inside) {
    const count = inside.nodes.filter(({ kind }) => kind === "operation").length;
    parts.push(make("button", { type: "button", id: "inside", onclick: () => open_inside(node.id) },
      `Open ${node.name}: ${count} ${count === 1 ? "operation" : "operations"} inside`));
  }
  parts.push(...(is_backward(now) ? backward_numbers(now, node) : []), ...forward_numbers(node));
  return parts.some((part) => part.querySelector(".map")) ? [...parts, legend()] : parts;
}

const cards = (...figures) => make("div", { className: "cards" }, ...figures);
const heading = (text) => make("h3", {}, text);
const note = (...parts) => make("p", { className: "soft" }, ...parts);
const sign = (text) => make("span", { className: "sign" }, text);
const short = (name) => name.split(".").slice(-2).join(".");  // of a parameter
const legend = () => note("below zero ", make("span", { className: "scale" }),
  " above zero. Each picture has a scale of its own; the three of a sum share one.");

function forward_numbers(node) {
  const inputs = node.inputs.flatMap((number, i) => {
    if (number === null) return [];
    const { label, value } = node_of(number), name = node.input_names[i];
    return [figure(label && label !== name ? `${name}: ${short(label)}` : name, value)];
  });
  const result = figure(`→ ${node.label || "result"}`, node.value);
  return [heading("Forward: inputs and result"), cards(...inputs, result)];
}

function backward_numbers(now, node) {
  const turn = film.steps.filter((each) => is_backward(each) && each.node === now.node);
  const before = turn.slice(0, turn.indexOf(now)), after = turn.slice(turn.indexOf(now) + 1);
  const input_of = ({ input, to }) => {
    const name = node.input_names[input], { called } = node_of(to);
    return called === name ? name : `${name}: ${short(called)}`;
  };
  const handed = (each) => figure(`→ ${input_of(each)}`, each.contribution);
  const parts = [
    heading("Backward: the gradient that comes in, and what goes on"),
    cards(figure("comes in", now.incoming), handed(now)),
  ];
  if (now.adds) parts.push(heading(`It adds up: the gradient of ${short(node_of(now.to).called)}`), sum(now));
  if (before.length) parts.push(heading("Handed to other inputs"), cards(...before.map(handed)));
  if (after.length) parts.push(note(`Still to come: ${after.map(input_of).join(", ")}`));
  return parts;
}

function sum(now) {  // what was there + what arrives = what is there now
  const before = film.steps.slice(0, film.steps.indexOf(now)).findLast(({ to }) => to === now.to);
  const numbers = [before.total, now.contribution, now.total];
  const terms = numbers.map((number) => arrays[number]);
  if (is_single(terms[2])) {
    const [a, b, c] = terms.map(({ min }) => digits(min));
    return make("p", { className: "number" }, `${a} + ${b.startsWith("-") ? `(${b})` : b} = ${c}`);
  }
  const limit = Math.max(...terms.map(largest_of));
  const [a, b, c] = ["before", "arrives", "now"].map((name, i) => figure(name, numbers[i], limit));
  return make("div", { className: "cards sum" }, a, sign("+"), b, sign("="), c);
}

// --- the source ---
function show_source(now) {
  const node = node_of(now.node), source = sources[now.source ?? node.source];
  $("file").textContent = source ? source.file : `There is no source of ${node.name} to show.`;
  $("lines").replaceChildren();
  if (!source) return;
  const holds = (number) => ([first, last]) => first <= number && number <= last;
  const lines = source.text.split("\n").map((line, i) => {
    const number = source.first_line + i, runs = now.lines && holds(number)(now.lines);
    const kind = runs ? "runs" : now.also?.some(holds(number)) ? "also" : "";
    return make("div", { className: `code ${kind}` }, make("span", {}, `${runs ? "▶ " : ""}${number}`),
      make("span", {}, ...(runs ? marked(line, now.columns ?? [0, 0]) : [line])));
  });
  if (now.lines) $("file").append(" · marked: the pullback that runs");
  $("lines").replaceChildren(...lines);
  const first = $("lines").querySelector(".runs") ?? lines[0];
  $("lines").scrollTop = first.offsetTop - lines[0].offsetTop - $("lines").clientHeight / 3;
}

const marked = (line, [first, last]) => (
  [line.slice(0, first), make("mark", {}, line.slice(first, last)), line.slice(last)]);

// --- keys, buttons, and the notebook around ---
const KEYS = {
  ArrowLeft: () => move(-1), ArrowRight: () => move(1),
  Home: () => move(-Infinity), End: () => move(Infinity),
  " ": () => play(timer === null),
  o: () => open(focused_box() ?? box_of(film.steps[step].node)), Escape: close,
};
const KEYS_IN_GRAPH = {
  ArrowUp: () => focus_box(-1), ArrowDown: () => focus_box(1), Enter: () => press(focused_box()),
};
const focused_box = () => document.activeElement?.closest(".box");
const press = (box) => (box.dataset.module ? open(box) : visit(result_of(box).id));
const focus_box = (by) => graph().boxes[graph().boxes.indexOf(focused_box()) + by]?.focus();

document.onkeydown = (event) => {
  const { key, target, ctrlKey, altKey, metaKey } = event, in_graph = Boolean(focused_box());
  const action = KEYS[key] ?? (in_graph ? KEYS_IN_GRAPH[key] : null);
  if (!action || ctrlKey || altKey || metaKey) return;
  if (key === " " && target.closest("button, [type=checkbox]")) return;  // it presses that
  event.preventDefault();
  action();
  if (in_graph && !focused_box()) box_of(film.steps[step].node).focus();  // its view is hidden now
};
const MOVES = { first: -Infinity, back: -1, next: 1, last: Infinity };
for (const id in MOVES) $(id).onclick = () => move(MOVES[id]);
$("play").onclick = () => play(timer === null);
$("slider").oninput = () => go(seen_steps()[$("slider").value]);
$("views").onclick = ({ target }) => {
  const box = target.closest(".box");
  if (box) (target.closest(".opener") ? open : press)(box);
};

function fit_into_notebook(frame) {
  const body = window.parent.document.body, still = frame.previousElementSibling;
  if (still?.tagName === "IMG") still.style.display = "none";
  const follow_theme = () => {  // of JupyterLab or VS Code
    const { jpThemeLight, vscodeThemeKind } = body.dataset;
    const is_dark = jpThemeLight === "false" || /dark|contrast$/.test(vscodeThemeKind);
    if (jpThemeLight || vscodeThemeKind) document.documentElement.dataset.theme = is_dark ? "dark" : "light";
  };
  new MutationObserver(follow_theme).observe(body, { attributes: true });
  const fit_height = () => { frame.style.height = `${document.documentElement.offsetHeight}px`; };
  new ResizeObserver(fit_height).observe(document.documentElement);
  follow_theme();
}

try {
  if (window.frameElement) fit_into_notebook(window.frameElement);
} catch { /* the page around is not ours to touch: then the player stays as it is */ }
window.onresize = fit_graph;
show();
