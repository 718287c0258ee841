// The explorer: points, controls and chart. The page wraps explorer_panel.js and this file in one function.
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

const number = value => {  // four digits, with at least one decimal below 10,000
  const size = Math.abs(value);
  return size >= 1e4 ? value.toFixed(0) : size >= 100 ? value.toFixed(1) : size >= 10 ? value.toFixed(2)
    : size >= 1 || size === 0 ? value.toFixed(3) : value.toPrecision(4);
};
const exact = value => String(Number(value.toPrecision(9)));
const percent = value => `${value.toFixed(2)} %`;
const withUnit = (text, unit) => unit.startsWith("1e6") ? `${text} x ${unit}` : `${text} ${unit}`.trim();

// --- points: one object each, for the chart and the panel

const points = data.points.cell.map((place, i) => {
  const column = name => data.points[name][i];
  const [setting, strategy, set, target, low, high, n] = data.cells[place];
  const {unit} = data.subjects[column("subject")];
  const point = {id: i, setting, strategy, set, target, unit, seed: column("seed"), cost: column("cost"),
    accuracy: column("accuracy"), macs: column("macs"), params: column("params"),
    subject: data.subjects[column("subject")], arch: data.archs[column("arch")], best: false};
  point.targetText = target === null ? "none (from a front)" : withUnit(exact(target), unit);
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

function fronts(shown) {  // the line has the points that no other point of the strategy's fronts beats
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
    : `Nothing in the chart costs at most ${limit}.`;
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
    const extent = key => {  // fixed, so that the axes do not change when strategies are shown or hidden
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

// --- begin

async function loadBundle() {  // it is embedded in this page, compressed
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
  root.before(make("p", "The explorer needs a newer browser. The figures and tables below show the same answers.", "note"));
});
