"use strict";
// The sections that the report and the live page share. Data comes from files of runs: text stays text.

const KINDS = {
  correct: { word: "correct", color: "#00a878", dash: "", help: "the right class, IoU 0.5 or more" },
  background: { word: "false positive", color: "#ff6a1f", dash: "", help: "nothing is there: IoU at most 0.1 with every label" },
  missed: { word: "missed", color: "#3aa0ff", dash: "6 4", help: "a label that no detection explains" },
  classification: { word: "wrong class", color: "#e07fc0", dash: "", help: "well on a label of another class, IoU 0.5 or more" },
  localisation: { word: "loose box", color: "#f0b000", dash: "2 3", help: "the right class, but IoU from 0.1 to 0.5 only" },
  both: { word: "wrong class, loose", color: "#f4ec5a", dash: "8 3 2 3", help: "another class, and IoU from 0.1 to 0.5 only" },
  duplicate: { word: "double", color: "#8fd4ff", dash: "3 3", help: "a better scored detection has found this label" },
};

function section(id, title, ...content) {
  return h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), content);
}

// one broken part of a file must not hide the others
function guarded(id, title, build) {
  try {
    const content = build();
    return content === null ? null : section(id, title, content);
  } catch (error) {
    return section(id, title, h("p", { class: "problem" }, `This part can't be shown: ${error.message}`));
  }
}

function pairs(entries) {
  const kept = entries.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", { class: "pairs" }, kept.map(([key, value]) => [h("dt", {}, key), h("dd", {}, value instanceof Node ? value : plain(value))]));
}

function plain(value) {
  if (typeof value === "number") return number(value);
  if (value === null || value === undefined) return "none";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function tile(label, value) { return h("div", { class: "tile" }, h("b", {}, value), h("span", {}, label)); }

function span(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 120) return `${Math.round(seconds * 10) / 10} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  return minutes < 2880 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${Math.floor(minutes / 1440)} d ${Math.floor(minutes / 60) % 24} h`;
}

function when(time) {
  const moment = new Date(time || "");
  return Number.isNaN(moment.getTime()) ? "–" : moment.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

function copyButton(text) {
  const button = h("button", { type: "button", class: "tiny" }, "copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(button.previousElementSibling);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = "selected: press Ctrl+C";
    }
    setTimeout(() => { button.textContent = "copy"; }, 2500);
  });
  return button;
}

function stateMark(state) { return h("span", { class: `state ${state}` }, state); }

function progressBar(part) {
  const inner = h("i", {}), percent = Math.round(100 * Math.min(Math.max(part || 0, 0), 1));
  inner.style.width = `${percent}%`;
  return h("span", { class: "bar", role: "progressbar", "aria-valuenow": percent, "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": "progress" }, inner);
}

/* A table whose columns sort. columns: [{key, title, text, show(row), value(row)}] */
function sortableTable(label, columns, rows, order = null) {
  const body = h("tbody", {});
  let sort = order || { key: null, up: false };
  const heads = columns.map((column) => {
    const head = h("th", { scope: "col", class: column.text ? "text" : null, "data-key": column.key });
    head.append(h("button", { type: "button", onclick: () => by(column) }, column.title, h("span", { "aria-hidden": "true" })));
    return head;
  });
  function by(column) {
    sort = { key: column.key, up: sort.key === column.key ? !sort.up : Boolean(column.text) };
    table.render();
  }
  const value = (column, row) => (column.value ? column.value(row) : row[column.key]);
  const table = h("table", {}, h("caption", { class: "sr" }, label), h("thead", {}, h("tr", {}, heads)), body);
  table.render = (newRows = rows) => {
    rows = newRows;
    const column = columns.find((one) => one.key === sort.key);
    const sorted = [...rows];
    if (column)
      sorted.sort((a, b) => {
        const [p, q] = [value(column, a), value(column, b)];
        const gone = (one) => one === null || one === undefined || Number.isNaN(one);
        if (gone(p) || gone(q)) return gone(p) - gone(q);
        const less = typeof p === "number" && typeof q === "number" ? p - q : String(p).localeCompare(String(q), undefined, { numeric: true });
        return sort.up ? less : -less;
      });
    heads.forEach((head, i) => {
      const mine = columns[i].key === sort.key;
      head.setAttribute("aria-sort", mine ? (sort.up ? "ascending" : "descending") : "none");
      head.querySelector("span").textContent = mine ? (sort.up ? " ▲" : " ▼") : "";
    });
    body.replaceChildren(...sorted.map((row) => {
      const cells = columns.map((column, i) => {
        const shown = column.show ? column.show(row) : value(column, row);
        const content = shown instanceof Node ? shown : typeof shown === "number" ? number(shown, column.digits || 4) : plain(shown ?? "–");
        return i ? h("td", { class: column.text ? "text" : null }, content) : h("th", { scope: "row", class: "text" }, content);
      });
      return h("tr", { class: row.chosen ? "chosen" : null }, cells);
    }));
  };
  table.render();
  return table;
}

// ------------------------------------------------------------------ curves over epochs

function groupOf(key) {
  const cut = key.lastIndexOf("/"), prefix = cut < 0 ? "" : key.slice(0, cut), name = key.slice(cut + 1);
  if (prefix === "lr") return "learning rate";
  if (prefix === "metrics" && /^(precision|recall)/.test(name)) return "precision and recall";
  if (prefix === "metrics" && name.startsWith("mAP")) return "AP";
  if (prefix === "train" || prefix === "val") return name === "loss" ? "total loss" : name.replaceAll("_", " ");
  return prefix.includes("/") ? prefix : key;
}

const GROUP_ORDER = ["AP", "precision and recall"];

/* runs: [{name, metrics: {epoch: [], key: []}}]; charts are kept and updated, so that zoom and cursor stay */
class CurvePanel {
  constructor(storage = {}) {
    this.charts = new Map();
    this.smoothing = storage.smoothing || 0;
    this.slider = h("input", { type: "range", min: 0, max: 0.98, step: 0.02, value: this.smoothing, oninput: () => {
      this.smoothing = +this.slider.value;
      this.output.textContent = this.smoothing.toFixed(2);
      this.update(this.runs);
    } });
    this.output = h("output", {}, this.smoothing.toFixed(2));
    this.filter = h("input", { type: "search", placeholder: "such as loss or mAP", oninput: () => this.update(this.runs) });
    this.grid = h("div", { class: "charts" });
    this.element = h("div", {},
      h("div", { class: "row" }, h("label", {}, "smoothing", this.slider, this.output), h("label", {}, "metric", this.filter),
        h("span", { class: "small soft" }, "drag across a chart to zoom, double-click for the whole")),
      this.grid);
  }

  update(runs) {
    this.runs = runs;
    const groups = new Map();
    runs.forEach((run, r) => {
      let skipped = new Map();
      for (const [key, y] of Object.entries(run.metrics)) {
        if (key === "epoch" || key === "seconds" || !y.some(Number.isFinite)) continue;
        const group = groupOf(key);
        // learning rates of equal groups are one line
        const same = skipped.get(group)?.find((other) => group === "learning rate" && other.y.every((value, i) => value === y[i]));
        if (same) continue;
        skipped.set(group, [...(skipped.get(group) || []), { key, y }]);
        if (!groups.has(group)) groups.set(group, []);
        groups.get(group).push({ run: r, key, y });
      }
    });
    const wanted = this.filter.value.trim().toLowerCase();
    const rank = (name) => { const at = GROUP_ORDER.indexOf(name); return at >= 0 ? at : name.endsWith("loss") ? 2 : name.startsWith("speed") ? 9 : name === "learning rate" ? 8 : 5; };
    const names = [...groups.keys()].filter((name) => !wanted || `${name} ${groups.get(name).map((one) => one.key).join(" ")}`.toLowerCase().includes(wanted));
    names.sort((a, b) => rank(a) - rank(b));
    const cards = names.map((name) => {
      const members = groups.get(name), keys = [...new Set(members.map((one) => one.key))];
      const short = (key) => (name.endsWith("loss") ? key.split("/")[0] : key.split("/").at(-1));
      const series = members.map((one) => ({
        name: runs.length > 1 ? (keys.length > 1 ? `${runs[one.run].name}: ${short(one.key)}` : runs[one.run].name) : short(one.key),
        x: runs[one.run].metrics.epoch, y: one.y,
        color: runs.length > 1 ? one.run : keys.indexOf(one.key), dash: runs.length > 1 ? keys.indexOf(one.key) : 0,
      }));
      if (this.charts.has(name)) this.charts.get(name).update(series, this.smoothing);
      else this.charts.set(name, new LineChart({ title: name, series, smoothing: this.smoothing, whole: true, showLegend: true }));
      return this.charts.get(name).element;
    });
    for (const name of [...this.charts.keys()]) if (!groups.has(name)) this.charts.delete(name);
    const now = [...this.grid.children];
    if (cards.length !== now.length || cards.some((card, i) => card !== now[i])) this.grid.replaceChildren(...(cards.length ? cards : [h("p", { class: "soft" }, "No epoch has ended yet.")]));
  }
}

// ------------------------------------------------------------------ the validation

function classTable(evaluation) {
  const filter = h("input", { type: "search", "aria-label": "filter classes by name" });
  const columns = [
    { key: "name", title: "class", text: true },
    ...["images", "instances"].map((key) => ({ key, title: key })),
    ...[["precision", "P"], ["recall", "R"], ["f1", "F1"], ["ap50", "AP50"], ["ap", "AP50-95"]].map(([key, title]) => ({ key, title, show: (row) => row[key]?.toFixed(3) ?? "–" })),
  ];
  const table = sortableTable("metrics of each class", columns, evaluation.classes);
  filter.addEventListener("input", () => table.render(evaluation.classes.filter((row) => row.name.toLowerCase().includes(filter.value.toLowerCase()))));
  const left = evaluation.classes_left_out;
  return [
    h("div", { class: "row" }, h("label", {}, "class", filter),
      h("span", { class: "small soft" }, `${evaluation.classes.length} classes with labels; precision, recall and F1 at confidence ${evaluation.best_confidence.toFixed(3)}, IoU 0.5`)),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "per-class table" }, table),
    left ? h("p", { class: "small soft" }, `${left} more classes are not listed.`) : null,
  ];
}

function evaluationCurves(evaluation, onPick) {
  const { curves } = evaluation;
  if (!curves.all) return h("p", { class: "soft" }, "There are no labels.");
  const few = curves.classes.length <= 8;
  const pick = h("select", { multiple: !few, size: few ? null : 6, "aria-label": "classes to highlight" },
    curves.classes.map((one, i) => h("option", { value: i }, one.name)));
  const charts = h("div", { class: "charts two" });
  const kinds = [["precision_at_recall", "Precision over recall", "recall"], ["f1", "F1 over confidence", "confidence"], ["precision", "Precision over confidence", "confidence"], ["recall", "Recall over confidence", "confidence"]];
  const made = kinds.map(([kind, title, axis]) => new LineChart({
    title, xLabel: axis, series: [], fixed: true, showLegend: true, xRange: [0, 1], yRange: [0, 1.01],
    marks: axis === "confidence" ? [{ x: evaluation.best_confidence, label: `best F1 at ${evaluation.best_confidence.toFixed(2)}` }] : [],
  }));
  const render = () => {
    const chosen = few ? curves.classes.map((_, i) => i) : [...pick.selectedOptions].map((option) => +option.value).slice(0, 8);
    kinds.forEach(([kind, , axis], k) => {
      const x = axis === "recall" ? curves.recall : curves.confidence;
      const rows = curves.classes.length > 1 ? curves.classes.map((one, i) => ({ name: one.name, x, y: one[kind], color: chosen.indexOf(i), faint: !chosen.includes(i) })) : [];
      rows.sort((a, b) => b.faint - a.faint);
      made[k].update([...rows, { name: curves.classes.length > 1 ? "all classes" : curves.classes[0].name, x, y: curves.all[kind], color: 6, wide: true }]);
    });
  };
  pick.addEventListener("change", render);
  charts.append(...made.map((chart) => chart.element));
  render();
  return [
    few ? null : h("div", { class: "row" }, h("label", {}, "highlight up to 8", pick), h("span", { class: "small soft" }, "Ctrl or Shift picks several; the thin lines are the classes, the thick one their mean")),
    charts,
    curves.left_out ? h("p", { class: "small soft" }, `Curves of the ${curves.classes.length} classes with the most labels; ${curves.left_out} more are part of the mean only.`) : null,
  ];
}

function confusionView(evaluation) {
  const { confusion } = evaluation;
  if (!confusion) return h("p", { class: "soft" }, "It is computed at the end of the run.");
  const { names, matrix } = confusion, count = names.length, dense = count > 20;
  const totals = names.map((_, column) => matrix.reduce((sum, row) => sum + row[column], 0));
  let shares = false;
  const readout = h("p", { class: "small", "aria-live": "polite" }, "Point at a cell, or walk with the arrow keys.");
  const body = h("tbody", {});
  const say = (r, c) => {
    const part = totals[c] ? ` (${((100 * matrix[r][c]) / totals[c]).toFixed(1)} % of the true class)` : "";
    readout.textContent = `predicted ${names[r]}, truly ${names[c]}: ${number(matrix[r][c])}${part}`;
  };
  const cells = [];
  const render = () => {
    body.replaceChildren(...matrix.map((row, r) => h("tr", {}, h("th", { scope: "row", title: names[r] }, names[r]), row.map((value, c) => {
      const share = totals[c] ? value / totals[c] : 0;
      const text = dense || !value ? "" : shares ? share.toFixed(2) : number(value);
      const cell = h("td", { "data-at": `${r},${c}`, tabindex: r || c ? -1 : 0, "aria-label": dense ? null : `predicted ${names[r]}, truly ${names[c]}: ${value}` }, text);
      cell.style.backgroundColor = `rgba(var(--shade), ${value ? 0.08 + 0.92 * share : 0.03})`;
      if (share > 0.5) cell.style.color = "var(--paper)";
      cells[r * count + c] = cell;
      return cell;
    }))));
  };
  const at = (event) => event.target.closest?.("td")?.dataset.at?.split(",").map(Number);
  body.addEventListener("pointerover", (event) => { const place = at(event); if (place) say(...place); });
  body.addEventListener("focusin", (event) => { const place = at(event); if (place) say(...place); });
  body.addEventListener("keydown", (event) => {
    const place = at(event), move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!place || !move) return;
    const [r, c] = place.map((value, i) => Math.min(Math.max(value + move[i], 0), count - 1));
    event.target.tabIndex = -1;
    cells[r * count + c].tabIndex = 0;
    cells[r * count + c].focus();
    event.preventDefault();
  });
  render();
  const toggle = h("button", { type: "button", class: "tiny", "aria-pressed": "false", onclick: () => {
    shares = !shares;
    toggle.setAttribute("aria-pressed", String(shares));
    render();
  } }, "shares");
  return [
    h("div", { class: "row" }, dense ? null : toggle, h("span", { class: "small soft" }, `row = predicted, column = true class; confidence above ${confusion.conf}, IoU above ${confusion.iou}; a stronger colour is a larger share of the true class`)),
    readout,
    h("div", { class: "scroll" }, h("table", { class: `matrix${dense ? " dense" : ""}` }, h("caption", { class: "sr" }, "confusion matrix"),
      h("thead", {}, h("tr", {}, h("th", {}), names.map((name) => h("th", { scope: "col", title: name }, h("span", {}, name))))), body)),
  ];
}

function sizesView(evaluation) {
  const limits = { small: "below 32 × 32 px", medium: "to 96 × 96 px", large: "above" };
  const rows = Object.entries(evaluation.sizes).map(([size, row]) => ({ size, ...row }));
  const bar = (value) => (value === null ? "no objects" : h("span", {}, progressBar(value), ` ${value.toFixed(3)}`));
  return h("div", { class: "scroll" }, sortableTable("AP by object size", [
    { key: "size", title: "objects", text: true, show: (row) => `${row.size}, ${limits[row.size] || ""}` },
    { key: "instances", title: "labels" },
    { key: "ap", title: "AP50-95", show: (row) => bar(row.ap) },
    { key: "ar", title: "AR", show: (row) => bar(row.ar) },
  ], rows));
}

// ------------------------------------------------------------------ errors and images

function kindKey(kind) {
  const { color, dash, word } = KINDS[kind];
  return h("span", { class: "key" }, s("svg", { viewBox: "0 0 26 14", "aria-hidden": "true" },
    s("rect", { x: 1.5, y: 1.5, width: 23, height: 11, fill: "#222", stroke: color, "stroke-width": 3, "stroke-dasharray": dash })), word);
}

function errorsView(evaluation) {
  const { errors, samples } = evaluation;
  let threshold = Math.round(evaluation.best_confidence * 100) / 100;
  const slider = h("input", { type: "range", min: 0.01, max: 0.99, step: 0.01, value: threshold, "aria-label": "confidence threshold", id: "threshold" });
  const output = h("output", { for: "threshold" });
  const hidden = new Set();
  const facts = h("p", {});
  const body = h("tbody", {});
  const order = ["correct", "classification", "localisation", "both", "duplicate", "background", "missed"];
  const at = (list) => list[Math.round(threshold * (list.length - 1))];
  const figures = samples.map((sample) => sampleView(sample, evaluation.sample_names));
  const toggles = h("div", { class: "row", role: "group", "aria-label": "boxes that are drawn" }, order.map((kind) => {
    const box = h("input", { type: "checkbox", checked: true, onchange: () => { box.checked ? hidden.delete(kind) : hidden.add(kind); render(); } });
    return h("label", { class: "small" }, box, kindKey(kind));
  }));
  const render = () => {
    output.textContent = threshold.toFixed(2);
    const c = evaluation.curves.all;
    facts.textContent = c ? `At this threshold: precision ${at(c.precision).toFixed(3)}, recall ${at(c.recall).toFixed(3)}, F1 ${at(c.f1).toFixed(3)} (mean over the classes).` : "";
    body.replaceChildren(...order.map((kind) => {
      const gain = errors.gain[kind];
      return h("tr", {}, h("th", { scope: "row" }, kindKey(kind)), h("td", {}, number(at(errors.counts[kind]))),
        h("td", {}, kind === "correct" ? "" : gain === undefined ? "–" : `+${gain.toFixed(3)}`), h("td", { class: "text soft" }, KINDS[kind].help));
    }));
    figures.forEach((figure) => figure.show(threshold, hidden));
  };
  slider.addEventListener("input", () => { threshold = +slider.value; render(); });
  const part = (rank, title) => {
    const chosen = figures.filter((_, i) => samples[i].rank === rank).map((figure) => figure.element);
    return chosen.length ? [h("h3", {}, title), h("div", { class: "images" }, chosen)] : null;
  };
  render();
  return [
    h("div", { class: "row" }, h("label", {}, "confidence threshold", slider, output),
      h("button", { type: "button", class: "tiny", onclick: () => { slider.value = threshold = Math.round(evaluation.best_confidence * 100) / 100; render(); } }, `best F1: ${evaluation.best_confidence.toFixed(2)}`)),
    facts,
    h("div", { class: "scroll" }, h("table", {}, h("caption", { class: "sr" }, "errors by kind"), h("thead", {}, h("tr", {}, ["kind", "number", "AP50 gained if mended", "what it is"].map((title, i) => h("th", { scope: "col", class: i === 3 ? "text" : null }, title)))), body)),
    h("p", { class: "small soft" }, `Kinds of errors by TIDE (arXiv:2008.08115); AP50 is ${(errors.gain.AP50 ?? 0).toFixed(3)}. The gains don't add up: each is what AP50 would be if this kind alone were mended.`),
    samples.length ? toggles : null,
    part("worst", "Images with the most errors"),
    part("best", "Images with the fewest errors"),
    evaluation.by_image.length ? h("details", {}, h("summary", {}, `All ${evaluation.images_with_errors} images with errors${evaluation.images_with_errors > evaluation.by_image.length ? `, the first ${evaluation.by_image.length}` : ""}, at the threshold with the best F1`),
      h("div", { class: "scroll", tabindex: 0 }, sortableTable("errors of each image", [
        { key: 0, title: "image", text: true }, { key: 1, title: "correct" },
        ...evaluation.kinds.map((kind, i) => ({ key: i + 2, title: KINDS[kind].word })),
      ], evaluation.by_image))) : null,
  ];
}

function sampleView(sample, names) {
  const [height, width] = sample.size, unit = Math.max(width, height) / 400; // svg px per px on a screen, about
  const boxes = s("g", {});
  const picture = s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" },
    sample.jpeg ? s("image", { href: `data:image/jpeg;base64,${sample.jpeg}`, width, height, preserveAspectRatio: "none" }) : s("rect", { width, height, fill: "#333" }), boxes);
  const caption = h("figcaption", {});
  const nameOf = (label) => names[label] ?? `class ${label}`;
  function show(threshold, hidden) {
    const found = sample.found.filter((row) => row[2] >= threshold).map(([box, label, score, kind]) => ({ box, kind, text: `${kind === "correct" ? "" : `${KINDS[kind].word}: `}${nameOf(label)} ${score.toFixed(2)}` }));
    const missed = sample.truth.filter((row) => row[2] < Math.max(threshold, 1e-9)).map(([box, label]) => ({ box, kind: "missed", text: `missed: ${nameOf(label)}` }));
    const all = [...found, ...missed];
    const counts = Object.keys(KINDS).map((kind) => [kind, all.filter((one) => one.kind === kind).length]).filter(([, n]) => n);
    const words = counts.map(([kind, n]) => `${n} ${KINDS[kind].word}`).join(", ") || "nothing found";
    caption.replaceChildren(h("b", {}, sample.name), ` – ${words}${sample.jpeg ? "" : " (the image file could not be read)"}`);
    picture.setAttribute("aria-label", `${sample.name}: ${words}`);
    const shown = all.filter((one) => !hidden.has(one.kind)).sort((a, b) => (b.kind === "correct") - (a.kind === "correct"));
    const crowded = shown.length > 15, taken = [];
    boxes.replaceChildren(...shown.map(({ box: [x0, y0, x1, y1], kind, text }) => s("rect", { x: x0, y: y0, width: Math.max(x1 - x0, 0.1), height: Math.max(y1 - y0, 0.1), fill: "none", stroke: KINDS[kind].color, "stroke-width": (kind === "correct" ? 1.4 : 2.6) * unit, "stroke-dasharray": KINDS[kind].dash.split(" ").filter(Boolean).map((d) => d * unit).join(" ") }, s("title", {}, text))));
    for (const { box, kind, text } of shown) {
      if (crowded && kind === "correct") continue;
      const size = 10.5 * unit, wide = text.length * size * 0.63 + 4 * unit, tall = size * 1.25;
      const clampX = (x) => Math.min(Math.max(x, 0), Math.max(width - wide, 0));
      const spots = [[box[0], box[1] - tall], [box[0], box[3]], [box[0], box[1]], [box[2] - wide, box[3] - tall], [box[2], box[1]]];
      const free = spots.map(([x, y]) => [clampX(x), y]).find(([x, y]) => y >= 0 && y + tall <= height && !taken.some((other) => x < other[0] + other[2] && other[0] < x + wide && y < other[1] + tall && other[1] < y + tall));
      if (!free) continue; // the title of the box has it
      taken.push([free[0], free[1], wide]);
      boxes.append(s("rect", { x: free[0], y: free[1], width: wide, height: tall, fill: KINDS[kind].color }),
        s("text", { x: free[0] + 2 * unit, y: free[1] + size, "font-size": size, fill: "#000" }, text));
    }
  }
  return { element: h("figure", {}, caption, picture), show };
}

function evaluationSections(evaluation) {
  if (!evaluation) return [section("classes", "Validation", h("p", { class: "soft" }, "There is no evaluation.json: the run has not validated yet, or was trained without the Report callback."))];
  const full = evaluation.final && evaluation.curves;
  return [
    guarded("classes", "Classes", () => classTable(evaluation)),
    full && guarded("pr", "Precision, recall and F1", () => evaluationCurves(evaluation)),
    full && guarded("confusion", "Confusion matrix", () => confusionView(evaluation)),
    full && guarded("sizes", "AP by object size", () => sizesView(evaluation)),
    full && guarded("errors", "Errors, best and worst images", () => errorsView(evaluation)),
    full ? null : h("p", { class: "soft" }, "Curves, the confusion matrix and errors follow at the end of the run."),
  ].filter(Boolean);
}

// ------------------------------------------------------------------ a run

function summaryTiles(run) {
  const { status } = run, best = status.best || {};
  const known = [["metrics/mAP50-95", "best mAP50-95"], ["metrics/mAP50", "its mAP50"], ["metrics/precision", "its precision"], ["metrics/recall", "its recall"]];
  return h("div", { class: "tiles" },
    tile("epochs", `${status.epoch ?? "–"} of ${status.epochs ?? "–"}`),
    known.filter(([key]) => Number.isFinite(best[key])).map(([key, label]) => tile(label, best[key].toFixed(3))),
    Number.isFinite(best.epoch) ? tile("best epoch", number(best.epoch)) : null,
    tile("duration", span(status.seconds)),
    run.state === "running" && Number.isFinite(status.eta_s) ? tile("left", span(status.eta_s)) : null);
}

function summaryText(run) {
  const { status } = run;
  return pairs([
    ["why it ended", status.stop_reason], ["error", status.error], ["note", run.note],
    ["started", when(status.started)], ["ended", status.ended ? when(status.ended) : null],
    ["command", status.command ? h("span", {}, h("code", {}, status.command), " ", copyButton(status.command)) : null],
  ]);
}

function settingsView(run) {
  if (!run.settings.length) return h("p", { class: "soft" }, "All settings are the defaults.");
  return h("div", { class: "scroll" }, sortableTable("settings that differ from the defaults", [
    { key: "name", title: "setting", text: true }, { key: "value", title: "value", text: true }, { key: "default", title: "default", text: true },
  ], run.settings));
}

function environmentView(run) {
  const { status } = run, data = status.data || {}, git = status.git;
  return pairs([
    ["data", data.name], ["data fingerprint", data.fingerprint],
    ["images", Number.isFinite(data.train_images) ? `${number(data.train_images)} to train on, ${number(data.val_images)} to validate on; ${number(data.classes)} classes` : null],
    ["seed", run.seed], ["commit", git ? `${git.commit}${git.dirty ? ", with changes" : ""}` : null], ["host", status.host],
    ...Object.entries(status.hardware || {}).map(([key, value]) => [key, plain(value)]),
    ["versions", Object.entries(status.versions || {}).map(([key, value]) => `${key} ${plain(value)}`).join(", ")],
  ]);
}

function timingView(run, evaluation) {
  const seconds = run.metrics.seconds?.filter(Number.isFinite) || [], epochs = seconds.map((value, i) => value - (i ? seconds[i - 1] : 0));
  const mean = (list) => (list?.length ? list.reduce((a, b) => a + b, 0) / list.length : NaN);
  const finite = (key) => run.metrics[key]?.filter(Number.isFinite);
  return pairs([
    ["duration", span(run.status.seconds)], ["per epoch", epochs.length ? `${span(mean(epochs))} on average` : null],
    ["training", finite("speed/images_per_second")?.length ? `${number(mean(finite("speed/images_per_second")), 3)} images per second` : null],
    ["waiting for data", finite("speed/data_wait")?.length ? `${(100 * mean(finite("speed/data_wait"))).toFixed(1)} % of the time` : null],
    ...Object.entries(evaluation?.speed || {}).filter(([, ms]) => ms > 0).map(([stage, ms]) => [`validation, ${stage}`, `${number(ms, 3)} ms per image`]),
  ]);
}
