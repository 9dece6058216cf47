const MOST = 8, SECONDS = 2;
const CHARTS = [
  // A logarithm shows nothing of accuracies near 1, but much of errors near 0.
  { title: "Accuracy (%)", logTitle: "Error (%)", digits: 2, field: "accuracy", show: (value, isLog) => 100 * (isLog ? 1 - value : value) },
  { title: "Loss (nats)", logTitle: "Loss (nats)", digits: 3, field: "loss", show: (value) => value },
];
let runs = [], chosen = null, cursor = null, order = null; // order: [column, whether the largest comes first]
const logs = new Map(), compared = new Map(), differing = new Map();

const color = (name) => `var(--c${chosen.indexOf(name) % MOST})`;
const time = (seconds) => seconds < 100 ? `${seconds.toFixed(0)} s` : seconds < 6000 ? `${(seconds / 60).toFixed(0)} min` : `${(seconds / 3600).toFixed(1)} h`;

async function look() {
  try {
    const found = await ask("/v1/runs");
    ({ runs } = found);
    $("folder").textContent = found.folder;
    const running = runs.filter((run) => run.state === "running").length;
    $("status").textContent = runs.length ? `${runs.length} ${runs.length === 1 ? "run" : "runs"}, ${running || "none"} in progress. Choose up to ${MOST} to see their curves and compare them.` : "No runs yet: reslab train makes one.";
    // First what is going on, else what changed last.
    chosen = (chosen || runs.filter((run) => running === 0 ? run.epochs : run.state === "running").slice(0, 3).map((run) => run.name)).filter((name) => runs.some((run) => run.name === name));
    list();
    await update();
  } catch (error) {
    $("status").textContent = error instanceof TypeError ? "The server cannot be reached; trying again." : error.message;
  }
  setTimeout(look, 1000 * SECONDS);
}

// Another run of the same name, after the first was deleted, is another one.
const identify = (name) => `${name}\n${runs.find((each) => each.name === name)?.began}`;

async function update() {
  await Promise.all(chosen.map(async (name) => {
    const known = logs.get(identify(name)) || [], run = runs.find((each) => each.name === name);
    if (run.epochs === known.length) return;
    const after = run.epochs > known.length ? known.length : 0; // one that was resumed from before may be shorter
    logs.set(identify(name), [...known.slice(0, after), ...await ask(`/v1/log?${new URLSearchParams({ run: name, after })}`)]);
  }));
  plot();
  await beside();
  await differences();
}

// ---- the list

function list() {
  const focused = document.activeElement?.dataset?.run;
  document.querySelector("#list tbody").replaceChildren(...wanted().map((run) => {
    const box = make("input"), swatch = make("span.swatch");
    Object.assign(box, { type: "checkbox", checked: chosen.includes(run.name), disabled: run.state === "damaged" });
    box.dataset.run = run.name;
    if (box.checked) swatch.style.background = color(run.name);
    box.onchange = () => {
      chosen = box.checked ? [...chosen, run.name].slice(-MOST) : chosen.filter((name) => name !== run.name);
      list();
      update();
    };
    const bar = make("progress");
    [bar.max, bar.value] = [run.num_epochs || 1, run.epochs + (run.progress?.share ?? 0)];
    bar.setAttribute("aria-hidden", "true");
    const test = run.test && `${percent(run.test.value, 2)}`;
    const report = make("a", "report");
    [report.href, report.target] = [`/v1/report?${new URLSearchParams({ run: run.name })}`, "_blank"];
    // With a token only this page can ask, and a link cannot bring it along.
    const linked = run.has_report && !sessionStorage.getItem("token");
    const name = make("th", make("label", box, swatch, run.name));
    name.scope = "row";
    const state = make(`td.state-${run.state}`, run.state, linked && " · ", linked && report);
    state.title = run.problem;
    return make("tr", name, state,
      make("td", run.state === "running" && bar, run.num_epochs ? `${(run.epochs + (run.progress?.share ?? 0)).toFixed(run.progress ? 1 : 0)} of ${run.num_epochs}` : "–"),
      make("td.number", percent(run.progress?.train_accuracy ?? run.train_accuracy, 2)), make("td.number", percent(run.validation_accuracy, 2)),
      make("td.number", test || "–"),
      make("td.number", run.seconds_left === null ? time(run.seconds) : `${time(run.seconds)}, ${time(run.seconds_left)} left`),
      make("td", run.problem || `${run.recipe}, ${run.data}`));
  }));
  if (focused) document.querySelector(`[data-run="${CSS.escape(focused)}"]`)?.focus();
}

// The runs that fit the filter, sorted by a column; at first the one that changed last.
function wanted() {
  const words = $("wanted").value.toLowerCase().split(/\s+/);
  const found = runs.filter((run) => words.every((word) => `${run.name} ${run.recipe} ${run.data} ${run.network} ${run.state}`.toLowerCase().includes(word)));
  if (!order) return found;
  const [column, falls] = order;
  const value = (run) => run[column]?.value ?? run[column] ?? -1;
  return found.sort((one, other) => (falls ? -1 : 1) * (typeof value(one) === "string" ? value(one).localeCompare(value(other)) : value(one) - value(other)));
}

$("wanted").oninput = list;
document.querySelectorAll("[data-sort]").forEach((button) => {
  button.onclick = () => {
    const { sort } = button.dataset;
    order = [sort, order?.[0] === sort ? !order[1] : !["name", "state", "recipe"].includes(sort)];
    document.querySelectorAll("[data-sort]").forEach((each) => each.closest("th").removeAttribute("aria-sort"));
    button.closest("th").setAttribute("aria-sort", order[1] ? "descending" : "ascending");
    list();
  };
});

// ---- curves

const draw = (kind, attributes, ...children) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", kind);
  Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
  node.append(...children);
  return node;
};

const UNITS = [["s", 1], ["min", 60], ["h", 3600]];
const round = (span) => [1, 2, 5, 10].map((step) => step * 10 ** Math.floor(Math.log10(span / 4))).find((step) => span / step <= 5);

// The mean of the values so far, of which each counts less by `weight` than the next.
function smooth(values, weight) {
  let sum = 0, total = 0;
  return values.map((value) => {
    [sum, total] = [weight * sum + value, weight * total + 1];
    return sum / total;
  });
}

// The marks of an axis, and where a value lies between the first mark, 0, and the last, 1.
function axis(values, isLog) {
  const least = Math.min(...values), most = Math.max(...values);
  if (isLog && most > 2 * least) {
    const powers = Array.from({ length: Math.floor(Math.log10(most)) - Math.floor(Math.log10(least)) + 2 }, (_, place) => 10 ** (place + Math.floor(Math.log10(least))));
    const steps = powers.flatMap((power) => (powers.length > 4 ? [1] : [1, 2, 5]).map((step) => step * power));
    const low = steps.findLast((step) => step <= least * 1.0001), high = steps.find((step) => step >= most * 0.9999);
    return { marks: steps.filter((step) => step >= low && step <= high), place: (value) => Math.log(value / low) / Math.log(high / low) };
  }
  const step = round((most - least) || 1);
  const low = Math.floor(least / step) * step, num = Math.max(1, Math.ceil((most - low) / step - 1e-9));
  return { marks: Array.from({ length: num + 1 }, (_, place) => low + place * step), place: (value) => (value - low) / (num * step) };
}

// What a run has logged, each epoch with when it ended; the one under way ends where its updates have come to.
function logged(name) {
  let seconds = 0;
  const epochs = (logs.get(identify(name)) || []).map((epoch) => ({ ...epoch, at: seconds += epoch.seconds }));
  const run = runs.find((each) => each.name === name), { progress } = run;
  return progress ? [...epochs, { ...progress, epoch: run.epochs + progress.share, at: seconds + progress.share * seconds / (run.epochs || 1) }] : epochs;
}

function chart({ title, logTitle, digits, field, show }) {
  const width = 480, height = 260, left = 44, right = 12, top = 8, bottom = 26;
  const [weight, isLog, isTimed] = [Number($("smoothing").value), $("logarithmic").checked, $("timed").checked];
  const heading = isLog ? logTitle : title;
  const lines = chosen.flatMap((name) => ["train", "validation"].map((split) => ({
    name, split, points: logged(name).map((epoch) => ({ x: isTimed ? epoch.at : epoch.epoch, raw: epoch[`${split}_${field}`] }))
      .filter(({ raw }) => raw !== null && raw !== undefined).map(({ x, raw }) => ({ x, raw: show(raw, isLog) })).filter(({ raw }) => !isLog || raw > 0),
  }))).filter((line) => line.points.length);
  if (!lines.length) return make("figure", make("figcaption", heading), make("p.note", "Nothing is logged yet."));
  lines.forEach(({ points }) => smooth(points.map(({ raw }) => raw), weight).forEach((value, place) => { points[place].y = value; }));
  const own = chosen.map((name) => runs.find((run) => run.name === name));
  const first = isTimed ? 0 : 1, last = isTimed ? Math.max(1, ...own.map((run) => run.seconds + (run.seconds_left || 0)), ...lines.map(({ points }) => points.at(-1).x)) : Math.max(2, ...own.map((run) => run.num_epochs));
  const { marks, place } = axis(lines.flatMap(({ points }) => points.flatMap(({ y, raw }) => [y, raw])), isLog);
  const x = (at) => left + (width - left - right) * (Math.max(first, at) - first) / (last - first);
  const y = (value) => top + (height - top - bottom) * (1 - place(value));
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${heading} ${isTimed ? "over time" : "after each epoch"}` });
  const reading = make("p.note.reading");
  marks.forEach((value) => svg.append(draw("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
    draw("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, Number(value.toFixed(6)).toString())));
  const [unit, size] = isTimed ? UNITS.findLast(([, seconds]) => last >= 2 * seconds) || UNITS[0] : ["", 1];
  const ticks = isTimed ? round(last / size) * size : Math.max(1, round(last - 1));
  for (let at = ticks; at <= last * 1.0001; at += ticks) {
    svg.append(draw("text", { x: x(at), y: height - 8, "text-anchor": at > last - ticks / 4 ? "end" : "middle" }, `${Number((at / size).toFixed(6))} ${unit}`.trim()));
  }
  const trace = (line, kind, key) => {
    const path = line.points.map((point) => `${x(point.x).toFixed(1)},${y(point[key]).toFixed(1)}`);
    const drawn = draw("path", { class: kind, d: `M${path.join("L")}${path.length === 1 ? "h3" : ""}` });
    drawn.style.stroke = color(line.name);
    svg.append(drawn);
  };
  if (weight) lines.forEach((line) => trace(line, "raw", "raw"));
  lines.forEach((line) => trace(line, line.split, "y"));
  const mark = draw("line", { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" });
  svg.append(mark);
  // By epochs the point of the cursor's; in time the nearest, up to where a run has come.
  const near = ({ points }) => isTimed
    ? points.reduce((best, point) => Math.abs(point.x - cursor) < Math.abs(best.x - cursor) ? point : best)
    : points.find((point) => point.x === cursor);
  const read = () => {
    const where = cursor !== null && (isTimed ? time(cursor) : `Epoch ${cursor}`);
    reading.textContent = cursor === null ? `Dashed: training; solid: validation${weight ? "; faint: as measured" : ""}.` : `${where}: ` + lines.map((line) => {
      const at = isTimed && cursor > line.points.at(-1).x ? null : near(line);
      return at && `${chosen.length > 1 ? `${line.name} ` : ""}${line.split} ${at.raw.toFixed(digits)}`;
    }).filter(Boolean).join(", ");
    mark.setAttribute("visibility", cursor === null ? "hidden" : "visible");
    if (cursor !== null) ["x1", "x2"].forEach((end) => mark.setAttribute(end, x(cursor)));
  };
  svg.onpointermove = (event) => {
    const box = svg.getBoundingClientRect(), across = (event.clientX - box.left) / box.width * width;
    const at = Math.min(last, Math.max(first, first + (across - left) / (width - left - right) * (last - first)));
    cursor = isTimed ? at : Math.round(at);
    read();
  };
  svg.onpointerleave = () => { cursor = null; read(); };
  read();
  return make("figure", make("figcaption", heading), svg, reading);
}

const plot = () => {
  $("view").hidden = !chosen.length;
  $("charts").replaceChildren(...(chosen.length ? CHARTS.map(chart) : []));
};
["smoothing", "logarithmic", "timed"].forEach((id) => { $(id).oninput = () => { cursor = null; plot(); }; });

// ---- those that are evaluated, beside each other

async function beside() {
  const names = chosen.filter((name) => runs.find((run) => run.name === name).test);
  if (names.length < 2) return $("beside").replaceChildren();
  // A run that was evaluated again has another figure; what failed is asked again.
  const key = names.map((name) => `${name} ${runs.find((run) => run.name === name).test.value}`).join("\n");
  if (!compared.has(key)) {
    const query = new URLSearchParams(names.map((name) => ["run", name]));
    try {
      compared.set(key, await ask(`/v1/compare?${query}`));
    } catch (error) {
      return $("beside").replaceChildren(make("p.bad", error.message));
    }
  }
  const { rows, pairs } = compared.get(key);
  // An interval without width would claim certainty.
  const between = ({ value, low, high }, show) => low === high ? show(value) : `${show(value)} (${show(low)} to ${show(high)})`;
  const row = (each, place) => {
    const swatch = make("th", names[place]);
    swatch.scope = "row";
    return make("tr", swatch, make("td.number", between(each.accuracy, (value) => percent(value, 2))),
      make("td.number", between(each.macro_f1, (value) => percent(value, 2))), make("td.number", each.log_loss.value.toFixed(3)));
  };
  const table = make("table", make("thead", make("tr", ...["Run", "Accuracy", "Macro F1", "Log loss (nats)"].map((title, place) => make(place ? "th.number" : "th", title)))), make("tbody", ...rows.map(row)));
  const some = (number) => number === 1 ? "1 image" : `${number || "no"} images`;
  const where = (pair) => pair.num_shared === null ? "" : `, on the ${some(pair.num_shared)} that both have`;
  return $("beside").replaceChildren(make("h2", "On their test images"), make("div.scroll", table), ...pairs.map((pair) => make("p.note", pair.mcnemar
    ? `${pair.first} against ${pair.second}${where(pair)}: ${some(pair.mcnemar.only_first)} right in the first alone, ${some(pair.mcnemar.only_second)} in the second alone; McNemar's p = ${Number(pair.mcnemar.p_value.toPrecision(3))}.`
    : `${pair.first} and ${pair.second} cannot be tested against each other: ${pair.reason}.`)));
}

// ---- what their recipes set differently

async function differences() {
  if (chosen.length < 2) return $("differences").replaceChildren();
  const key = chosen.map(identify).join("\n");
  if (!differing.has(key)) {
    const query = new URLSearchParams(chosen.map((name) => ["run", name]));
    try {
      differing.set(key, await ask(`/v1/differences?${query}`));
    } catch (error) {
      return $("differences").replaceChildren(make("p.bad", error.message));
    }
  }
  const rows = Object.entries(differing.get(key)).map(([field, values]) => {
    const head = make("th", field);
    head.scope = "row";
    return make("tr", head, ...values.map((value) => make("td", value)));
  });
  const heading = make("h2", "What their recipes set differently");
  if (!rows.length) return $("differences").replaceChildren(heading, make("p.note", "Nothing: they differ in the seed alone."));
  const table = make("table", make("thead", make("tr", make("th", "Field"), ...chosen.map((name) => make("th", name)))), make("tbody", ...rows));
  return $("differences").replaceChildren(heading, make("div.scroll", table));
}

look();
