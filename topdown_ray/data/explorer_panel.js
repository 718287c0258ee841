// The explorer's panel of an architecture: its layers, their costs, and buttons to copy it. See explorer.js.

const KINDS = {conv: "convolution", mbconv: "inverted bottleneck", bottleneck: "bottleneck",
  max_pool: "max-pooling", mean_pool: "global average pooling", linear: "classifier"};

function layersOf(point) {
  // [{layer, stage, expand, cost}] from the input to the classifier, and the constant that the cost table adds
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
  find(".facts").textContent = [point.target === null ? `from the front of a search (target set ${point.set})`
    : `target ${point.targetText} (target set ${point.set})`, ...counted(point.macs, point.macsText, "MACs"),
    ...counted(point.params, point.paramsText, "parameters"),
    ...(resolution === undefined ? [] : [`images of ${resolution}×${resolution}`])].join("; ");
  find(".copy-export").disabled = !known;
  find(".copied").textContent = "";
  find(".drawing").replaceChildren(...(drawable ? [drawLayers(point)] : []));
  find(".drawing").tabIndex = drawable ? 0 : -1;
  find(".costs").textContent = !drawable
    ? "The layers of this architecture are not shown, because the report was made without its space."
    : point.subject.costs === null ? "Shares are not shown, because the report was made without the cost table."
      : `Costs are in ${point.unit}, from ${point.subject.cost}. Shares are parts of ${withUnit(exact(point.cost), point.unit)}. `
        + "The bars under “width” grow with the square root of the output channels; their colour shows the kernel size. "
        + "SE is squeeze-and-excite.";
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
  } catch {  // the page is a file, or has no permission
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
  find(".copied").textContent = done ? `Copied the ${what}.` : `The browser does not allow copying. Copy the ${what} by hand:`;
  if (!done) Object.assign(find(".config"), {hidden: false, textContent: text});
}
