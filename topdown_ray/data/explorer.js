(() => {
"use strict";
const root = document.querySelector("#explorer .explorer");
const data = JSON.parse(document.getElementById("explorer-data").textContent);
const find = selector => root.querySelector(selector);
const make = (tag, text = "", className = "") => {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
};

// --- words and numbers

const number = value => {  // four digits, and never fewer than one decimal below 10,000
  const size = Math.abs(value);
  return size >= 1e4 ? value.toFixed(0) : size >= 100 ? value.toFixed(1) : size >= 10 ? value.toFixed(2)
    : size >= 1 || size === 0 ? value.toFixed(3) : value.toPrecision(4);
};
const exact = value => String(Number(value.toPrecision(9)));
const percent = value => `${value.toFixed(2)} %`;
const withUnit = (text, unit) => unit.startsWith("1e6") ? `${text} x ${unit}` : `${text} ${unit}`.trim();

// --- points: one object each, as the chart and the panel take them

const points = data.points.cell.map((place, i) => {
  const column = name => data.points[name][i];
  const [setting, strategy, set, target, low, high, n] = data.cells[place];
  const {unit} = data.subjects[column("subject")];
  const point = {id: i, setting, strategy, set, target, unit, seed: column("seed"), cost: column("cost"),
    accuracy: column("accuracy"), macs: column("macs"), params: column("params"),
    subject: data.subjects[column("subject")], arch: data.archs[column("arch")], best: false};
  point.targetText = target === null ? "none: of a front" : withUnit(exact(target), unit);
  point.costText = withUnit(exact(Number(point.cost.toFixed(4))), unit);
  point.accuracyText = `${point.accuracy.toFixed(4)} %`;
  point.intervalText = low === null ? "none" : `${low.toFixed(2)} to ${high.toFixed(2)} % (n = ${n})`;
  point.macsText = point.macs === null ? "not recorded" : number(point.macs);
  point.paramsText = point.params === null ? "not recorded" : number(point.params);
  return point;
});
const describe = point => `${percent(point.accuracy)} at ${withUnit(number(point.cost), point.unit)}, `
  + `${point.strategy}, ${point.target === null ? "front" : `target ${exact(point.target)}`}, seed ${point.seed}`;

// --- state

const state = {setting: data.settings[0], strategies: new Set(data.strategies), sets: new Set(data.sets),
  front: true, limit: 0, walk: -1, marked: null, shown: null};  // shown: by the panel
let view = null;
const ofSetting = () => points.filter(point => point.setting === state.setting);
const visible = () => ofSetting().filter(point => state.strategies.has(point.strategy)
  && state.sets.has(point.set) && (state.front || point.target !== null));
const byCost = (a, b) => a.cost - b.cost || b.accuracy - a.accuracy || a.id - b.id;
const walkable = () => visible().filter(point => point.target !== null).sort(byCost);
const best = () => visible().filter(point => point.cost <= state.limit)
  .sort((a, b) => b.accuracy - a.accuracy || byCost(a, b))[0];

// --- controls

function swatch(strategy) {
  const {colour, shape} = data.styles[strategy];
  const paths = {circle: "M-.8,0A.8,.8 0 1 0 .8,0A.8,.8 0 1 0-.8,0Z", square: "M-.7-.7H.7V.7H-.7Z",
    "triangle-up": "M0-.8L.9,.7H-.9Z", "triangle-down": "M0,.8L.9-.7H-.9Z", "triangle-left": "M-.8,0L.7-.9V.9Z",
    "triangle-right": "M.8,0L-.7-.9V.9Z", diamond: "M0-1L.8,0L0,1L-.8,0Z",
    cross: "M-.35-1H.35V-.35H1V.35H.35V1H-.35V.35H-1V-.35H-.35Z"};
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "-1.1 -1.1 2.2 2.2");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", paths[shape] ?? shape);
  path.setAttribute("fill", colour);
  svg.append(path);
  return svg;
}

function checkboxes(fieldset, names, chosen, decorate) {
  fieldset.querySelectorAll("label, button").forEach(element => element.remove());
  const boxes = names.map(name => {
    const label = make("label"), box = make("input");
    Object.assign(box, {type: "checkbox", checked: chosen.has(name), value: name});
    box.addEventListener("change", () => { chosen[box.checked ? "add" : "delete"](name); refresh(); });
    label.append(box, ...(decorate ? [decorate(name)] : []), name);
    fieldset.append(label);
    return box;
  });
  if (names.length > 6) for (const [words, on] of [["All", true], ["None", false]]) {
    const button = make("button", words);
    button.type = "button";
    button.setAttribute("aria-label", `${words} of ${fieldset.querySelector("legend").textContent}`);
    button.addEventListener("click", () => {
      boxes.forEach(box => { box.checked = on; chosen[on ? "add" : "delete"](box.value); });
      refresh();
    });
    fieldset.querySelector("label").before(button);
  }
}

const slider = find("input[type=range]"), field = find("input[type=number]");

function setLimit(value, echo) {
  state.limit = Number.isFinite(value) ? value : state.limit;
  slider.value = state.limit;
  if (echo) field.value = state.limit;
  refresh(false);
}

function enterSetting() {
  const own = ofSetting(), costs = own.map(point => point.cost).sort((a, b) => a - b);
  const {unit} = own[0], present = key => new Set(own.map(point => point[key]));
  const [strategies, sets] = [present("strategy"), present("set")];
  checkboxes(find(".strategies"), data.strategies.filter(name => strategies.has(name)), state.strategies, swatch);
  checkboxes(find(".sets"), data.sets.filter(name => sets.has(name)), state.sets);
  const layers = find(".layers");
  layers.hidden = !own.some(point => point.target === null);
  const fronts = new Set(state.front ? ["fronts of searches"] : []);
  fronts.add = () => { state.front = true; };
  fronts.delete = () => { state.front = false; };
  checkboxes(layers, ["fronts of searches"], fronts);
  const step = 10 ** (Math.floor(Math.log10(costs[costs.length - 1])) - 3);  // four digits
  const rounded = (value, round) => Number((round(value / step) * step).toPrecision(12));
  slider.min = field.min = rounded(costs[0], Math.floor);
  slider.max = rounded(costs[costs.length - 1], Math.ceil);
  slider.dataset.step = step;
  find(".limit .unit").textContent = unit.startsWith("1e6") ? `x ${unit}` : unit;
  find(".limit label").textContent = `Cost at most (${unit})`;
  state.walk = -1;
  close();
  state.limit = rounded(costs[Math.floor(costs.length / 2)], Math.ceil);
  slider.value = field.value = state.limit;
  draw();
}

// --- chart

function marks() {
  const marked = [], found = best();
  if (found) marked.push({cost: found.cost, accuracy: found.accuracy, what: "best"});
  const ringed = state.marked ?? state.shown;
  if (ringed && visible().includes(ringed)) marked.push({cost: ringed.cost, accuracy: ringed.accuracy, what: "chosen"});
  return marked;
}

function fronts(shown) {  // what no other point of its strategy's fronts beats goes into the line
  const highest = {};
  return shown.filter(point => point.target === null).sort(byCost).map(point => {
    const before = highest[point.strategy] ?? -Infinity;
    highest[point.strategy] = Math.max(before, point.accuracy);
    return {...point, best: point.accuracy > before};
  });
}

function refresh(all = true) {
  const found = best(), limit = withUnit(number(state.limit), ofSetting()[0].unit);
  find("output").textContent = found ? `At most ${limit}: ${describe(found)}`
    : `At most ${limit}: none of the answers that are shown.`;
  find(".show").disabled = !found;
  if (!view) return;
  if (all) {
    const shown = visible();
    state.walk = -1;
    view.data("answers", shown.filter(point => point.target !== null)).data("front", fronts(shown));
  }
  view.data("limit", [{cost: state.limit}]).data("marked", marks()).runAsync();
}

let drawing = Promise.resolve();
function draw() {
  drawing = drawing.then(async () => {
    const styles = getComputedStyle(document.documentElement);
    const colour = name => styles.getPropertyValue(name).trim();
    const [ink, soft, line] = ["--ink", "--soft", "--line"].map(colour);
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const spec = structuredClone(data.chart), own = ofSetting(), {unit} = own[0];
    const extent = key => {  // fixed, so that the axes stay while strategies come and go
      const values = own.map(point => point[key]);
      const [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
      return low < high ? [low, high] : [low - 1, high + 1];
    };
    const domains = {x: extent("cost"), y: extent("accuracy")};
    for (const layer of spec.layer) {
      for (const axis of ["x", "y"]) if (layer.encoding[axis]) layer.encoding[axis].scale.domain = domains[axis];
      layer.encoding.x.title = `cost (${unit})`;
      const {mark} = layer;
      if (["rule", "point"].includes(mark.type) && !layer.encoding.color) mark.color = ink;
    }
    spec.config = {...spec.config, background: "transparent", font: "system-ui, sans-serif",
      view: {stroke: null}, axis: {labelColor: soft, titleColor: ink, gridColor: line, gridOpacity: 0.6,
        domainColor: line, tickColor: line, labelFontSize: 12, titleFontSize: 13, titleFontWeight: "normal",
        labelOverlap: true}};
    view?.finalize();
    const embedded = await vegaEmbed(find(".canvas"), spec,
      {actions: false, renderer: "canvas", tooltip: {theme: dark ? "dark" : "light"}});
    view = find(".canvas").vegaView = embedded.view;
    view.addEventListener("click", event => { const point = nearest(event); if (point) open(point); });
    refresh();
    await view.runAsync();
    root.dataset.ready = `${state.setting} ${dark ? "dark" : "light"}`;
  });
}

function nearest(event) {  // the point within a finger's reach
  const canvas = find("canvas").getBoundingClientRect(), [left, top] = view.origin(), padding = view.padding();
  const [x, y] = [view.scale("x"), view.scale("y")];
  const away = point => Math.hypot(x(point.cost) + left + padding.left - (event.clientX - canvas.left),
    y(point.accuracy) + top + padding.top - (event.clientY - canvas.top)) + (point.target === null ? 0.5 : 0);
  let found = null, least = 20;
  for (const point of visible()) if (away(point) < least) [found, least] = [point, away(point)];
  return found;
}

find(".chart").addEventListener("keydown", event => {
  const all = walkable(), last = all.length - 1;
  const to = {ArrowRight: Math.min(state.walk + 1, last), ArrowLeft: Math.max(state.walk - 1, 0),
    Home: 0, End: last}[event.key];
  if (event.key === "Escape") close();
  else if (event.key === "Enter" && state.walk >= 0) open(all[state.walk]);
  else if (to !== undefined && last >= 0) {
    state.walk = to;
    state.marked = all[to];
    find(".spoken").textContent = `Answer ${to + 1} of ${last + 1}: ${describe(all[to])}.`;
    refresh(false);
  } else return;
  event.preventDefault();
});

// --- the panel of an architecture

const KINDS = {conv: "convolution", mbconv: "inverted bottleneck", bottleneck: "bottleneck",
  max_pool: "max-pooling", mean_pool: "global average pooling", linear: "classifier"};

function layersOf(point) {
  // [{layer, stage, expand, cost}] from the input to the classifier, and what the table adds
  const {space: place, costs} = point.subject, {choices, tables} = data.spaces[place];
  const genes = [...point.arch].map(digit => parseInt(digit, 36));
  const outside = [], blocks = [], groups = [];
  let constant = 0;
  tables.terms.forEach((term, t) => {
    const entry = term.genes.reduce((sum, g, axis) => sum * term.sizes[axis] + genes[g], 0);
    const layers = tables.groups[term.entries[entry]].map(i => tables.layers[i]);
    const cost = costs?.[t][entry], apart = Array.isArray(cost);
    if (apart && cost.length > layers.length) constant += cost[layers.length];
    const group = !apart && cost !== undefined && layers.length > 1 ? groups.push(cost) : 0;
    layers.forEach((layer, i) => (term.stage < 0 ? outside : blocks).push({layer, group, stage: term.stage,
      expand: term.expand < 0 ? null : choices[term.expand][genes[term.expand]],
      cost: apart ? cost[i] : group || cost === undefined ? null : cost}));
  });
  const behind = ({layer}) => blocks.length > 0 && layer[1] < blocks[0].layer[1];
  return {rows: [...outside.filter(row => !behind(row)), ...blocks, ...outside.filter(behind)], groups, constant};
}

function configOf(point) {
  if (point.arch.startsWith("{")) return point.arch;
  const {pattern, choices} = data.spaces[point.subject.space];
  return pattern.replace(/%(\d+)%/g, (_, g) => JSON.stringify(choices[g][parseInt(point.arch[g], 36)]));
}

function commandOf(point) {
  const quoted = text => `'${text.replaceAll("'", "'\\''")}'`;
  const name = data.spaces[point.subject.space].name, target = point.target === null ? "front" : exact(point.target);
  const at = number(point.cost);
  const out = `${name}-${point.strategy}-${target}-at-${at}-seed-${point.seed}`.replace(/[^A-Za-z0-9._-]+/g, "-");
  return `topdown-ray export ${quoted(configOf(point))} --space ${quoted(name)} --format torch --out ${quoted(out)}`;
}

function shareCell(cost, total, dearest) {
  const cell = make("td", "", "share"), bar = make("span", "", "bar");
  bar.style.setProperty("--share", Math.max(0, cost / dearest));
  cell.append(bar, `${(100 * cost / total).toFixed(1)} %`);
  return cell;
}

function drawLayers(point) {
  const {rows, groups, constant} = layersOf(point), withCosts = point.subject.costs !== null;
  const table = make("table"), head = make("tr"), body = make("tbody");
  table.append(make("thead"), body);
  table.tHead.append(head);
  table.setAttribute("aria-label", "Layers from the input to the classifier");
  const headings = ["#", "stage", "layer", ...(withCosts ? ["share of the cost", "cost"] : []), "kernel",
    "expansion", "channels", "width", "stride", "feature map", "details"];
  headings.forEach(text => { const cell = make("th", text); cell.scope = "col"; head.append(cell); });
  const widest = Math.max(...rows.map(row => row.layer[5]));
  const dearest = Math.max(...rows.map(row => row.cost ?? 0), ...groups);
  let stage = -1, position = 0;
  rows.forEach((row, i) => {
    const [kind, sizeIn, sizeOut, widthIn, , widthOut, kernel, stride, activation, , squeeze, shortcut] = row.layer;
    const line = make("tr", "", row.stage !== stage ? "stage" : ""), slides = kind !== "mean_pool" && kind !== "linear";
    position = row.stage === stage ? position + 1 : 1;
    stage = row.stage;
    const shape = make("td", "", "shape"), block = make("span", "", `block kernel-${slides ? kernel : 0}`);
    block.style.width = `${100 * Math.sqrt(widthOut / widest)}%`;
    shape.append(block);
    line.append(make("td", String(i + 1), "n"), make("td", stage < 0 ? "" : `${stage + 1}.${position}`, "n"),
      make("td", KINDS[kind] ?? kind));
    if (row.cost !== null) line.append(shareCell(row.cost, point.cost, dearest), make("td", number(row.cost), "n"));
    else if (withCosts) line.append(make("td", `in group ${row.group}`), make("td"));
    line.append(make("td", slides ? `${kernel}×${kernel}` : "", "n"),
      make("td", row.expand === null ? "" : String(row.expand), "n"), make("td", `${widthIn} → ${widthOut}`, "n"),
      shape, make("td", slides ? String(stride) : "", "n"),
      make("td", sizeIn === sizeOut ? `${sizeIn}×${sizeIn}` : `${sizeIn}×${sizeIn} → ${sizeOut}×${sizeOut}`, "n"),
      make("td", [activation.replace("_", "-"), squeeze ? "SE" : "", shortcut ? "shortcut" : ""]
        .filter(Boolean).join(", ")));
    body.append(line);
  });
  const further = groups.map((cost, i) => [`group ${i + 1}: its layers together`, cost]);
  if (constant) further.push(["added by the table to every architecture", constant]);
  for (const [words, cost] of further) {
    const line = make("tr", "", "stage"), cell = make("td", words);
    cell.colSpan = 3;
    line.append(cell, shareCell(cost, point.cost, dearest), make("td", number(cost), "n"));
    body.append(line);
  }
  return table;
}

function open(point) {
  state.shown = point;
  state.marked = null;
  const panel = find(".panel"), known = point.subject.space >= 0 && !point.arch.startsWith("{");
  const drawable = known && data.spaces[point.subject.space].tables !== null;
  find(".panel h3").textContent = `Architecture: ${describe(point)}`;
  const resolution = JSON.parse(configOf(point)).image_size;
  const counted = (value, text, what) => value === null ? [] : [`${text} x 1e6 ${what}`];
  find(".facts").textContent = [point.target === null ? `front of a search for the targets ${point.set}`
    : `target ${point.targetText} of the set ${point.set}`, ...counted(point.macs, point.macsText, "MACs"),
    ...counted(point.params, point.paramsText, "parameters"),
    ...(resolution === undefined ? [] : [`images of ${resolution}×${resolution}`])].join("; ");
  find(".copy-export").disabled = !known;
  find(".copied").textContent = "";
  find(".drawing").replaceChildren(...(drawable ? [drawLayers(point)] : []));
  find(".drawing").tabIndex = drawable ? 0 : -1;
  find(".costs").textContent = !drawable
    ? "The layers of this architecture are not known here: this installation lacks its space."
    : point.subject.costs === null ? "The cost table is not available here, so shares are left out."
      : `Costs in ${point.unit}, from ${point.subject.cost}; the shares are of ${withUnit(exact(point.cost), point.unit)}. `
        + "The bars under width grow with the square root of the output channels; their colour is the kernel's. "
        + "SE: squeeze-and-excite.";
  find(".config").hidden = drawable;
  find(".config").textContent = drawable ? "" : configOf(point);
  panel.hidden = false;
  find(".panel h3").focus({preventScroll: true});
  panel.scrollIntoView({block: "nearest"});
  refresh(false);
}

function close() {
  const wasOpen = !find(".panel").hidden;
  find(".panel").hidden = true;
  state.shown = state.marked = null;
  refresh(false);
  if (wasOpen) find(".chart").focus({preventScroll: true});
}

async function copy(text, what) {
  let done = false;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch {  // from a file, or without permission
    const area = make("textarea");
    area.value = text;
    area.setAttribute("readonly", "");
    area.style.cssText = "position:fixed;top:0;left:0;opacity:0";
    const focused = document.activeElement;
    root.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
    focused?.focus({preventScroll: true});
  }
  find(".copied").textContent = done ? `Copied: ${what}.` : `The browser refused; this is the ${what}:`;
  if (!done) Object.assign(find(".config"), {hidden: false, textContent: text});
}

// --- begin

async function loadBundle() {  // compressed, as a part of this page
  const packed = document.getElementById("explorer-bundle").textContent;
  const bytes = Uint8Array.from(atob(packed), letter => letter.charCodeAt(0));
  const script = make("script");
  script.textContent = await new Response(
    new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  document.head.append(script);
}

const settings = find("select");
data.settings.forEach(name => settings.add(new Option(name, name)));
find(".setting").hidden = data.settings.length < 2;
settings.addEventListener("change", () => { state.setting = settings.value; enterSetting(); });
slider.addEventListener("input", () => {
  const step = Number(slider.dataset.step);
  setLimit(Number((Math.round(slider.valueAsNumber / step) * step).toPrecision(12)), true);
});
field.addEventListener("input", () => setLimit(field.valueAsNumber, false));
find(".show").addEventListener("click", () => open(best()));
find(".close").addEventListener("click", close);
find(".panel").addEventListener("keydown", event => { if (event.key === "Escape") close(); });
find(".copy-config").addEventListener("click", () => copy(configOf(state.shown), "OFA configuration"));
find(".copy-export").addEventListener("click", () => copy(commandOf(state.shown), "export command"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
loadBundle().then(() => {
  root.hidden = false;
  enterSetting();
}, () => {
  root.before(make("p", "The explorer needs a newer browser; the figures and tables below show the same answers.", "note"));
});
})();
