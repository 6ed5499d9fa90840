"use strict";
// Elements and line charts. Text from files only ever becomes text nodes and attribute values, never markup.

const COLORS = 8;
const DASHES = ["", "7 3", "2 3", "9 3 2 3"];
let chartNumber = 0;

function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function s(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function number(value, digits = 4) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(2);
  return value.toFixed(Math.max(0, Math.min(digits, digits - Math.floor(Math.log10(size)) - 1)));
}

function tickText(value) { return number(value, 3).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, ""); }

function ticks(low, high, count) {
  const raw = (high - low) / Math.max(count, 1);
  if (!(raw > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
  return found;
}

function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const factor of [1, 2, 5]) {
      const value = factor * 10 ** power;
      if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
    }
  const tens = found.filter((value) => Math.abs(Math.log10(value) % 1) < 1e-9);
  return found.length > 7 && tens.length > 1 ? tens : found.length ? found : [low, high];
}

// exponential moving average, corrected for its start (Kingma and Ba, 2015, section 3); gaps stay gaps
function smoothed(values, weight) {
  if (!weight) return values;
  let sum = 0, correction = 0;
  return values.map((value) => {
    if (!Number.isFinite(value)) return null;
    sum = weight * sum + (1 - weight) * value;
    correction = weight * correction + (1 - weight);
    return sum / correction;
  });
}

function hasOutliers(values) {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  return sorted.length > 2 && sorted[0] > 0 && sorted.at(-1) > 20 * sorted[sorted.length >> 1];
}

function strokeOf(index) {
  return { stroke: `var(--c${index % COLORS})`, "stroke-dasharray": DASHES[Math.floor(index / COLORS) % DASHES.length] };
}

/* A line chart: drag or + and - zoom, arrows move the cursor, 0 and Escape reset; legend buttons hide series.
   options: title, xLabel, series [{name, x, y, color, dash, faint}], marks [{x, label}], xRange, yRange, smoothing, whole */
class LineChart {
  constructor(options) {
    this.options = options;
    this.hidden = new Set();
    this.zoom = null;
    this.cursor = null;
    this.log = null;
    this.id = `chart${++chartNumber}`;
    this.svg = s("svg", { class: "chart", tabindex: 0, role: "img", id: this.id });
    this.tip = h("div", { class: "tip", "aria-live": "polite" });
    this.legend = h("div", { class: "legend", role: "group", "aria-label": `series of ${options.title}` });
    this.logButton = h("button", { class: "tiny", type: "button", onclick: () => this.toggleLog() }, "log");
    this.resetButton = h("button", { class: "tiny hidden", type: "button", onclick: () => this.reset() }, "whole");
    this.element = h("div", { class: "card" },
      h("div", { class: "head" }, h("h3", {}, options.title), h("span", {}, this.resetButton, " ", options.fixed ? null : this.logButton)),
      this.svg, this.tip, this.legend);
    this.svg.addEventListener("pointerdown", (event) => this.down(event));
    this.svg.addEventListener("pointermove", (event) => this.move(event));
    this.svg.addEventListener("pointerup", (event) => this.up(event));
    this.svg.addEventListener("pointerleave", () => { if (!this.brush) this.point(null); });
    this.svg.addEventListener("pointercancel", () => { this.brush = null; this.draw(); });
    this.svg.addEventListener("dblclick", () => this.reset());
    this.svg.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.svg);
    this.drawLegend();
  }

  update(series, smoothing = this.options.smoothing) {
    const names = (list) => JSON.stringify(list.map((one) => [one.name, one.color, one.dash]));
    const same = names(series) === names(this.options.series);
    Object.assign(this.options, { series, smoothing });
    if (!same) this.drawLegend();
    this.draw();
  }

  shown() { return this.options.series.filter((one) => !this.hidden.has(one.name)); }

  isLog() {
    if (this.options.fixed) return false;
    const all = this.shown().flatMap((one) => one.y).filter(Number.isFinite);
    const possible = all.length && all.every((value) => value > 0);
    return Boolean(possible && (this.log === null ? hasOutliers(all) : this.log));
  }

  toggleLog() { this.log = !this.isLog(); this.draw(); }
  reset() { this.zoom = null; this.draw(); }

  drawLegend() {
    const named = this.options.series.filter((one) => !one.faint);
    this.legend.replaceChildren(...(named.length > 1 || this.options.showLegend ? named : []).map((one) => {
      const line = s("svg", { viewBox: "0 0 24 8", "aria-hidden": "true" },
        s("line", { x1: 0, y1: 4, x2: 24, y2: 4, "stroke-width": 3, stroke: `var(--c${one.color % COLORS})`, "stroke-dasharray": DASHES[(one.dash || 0) % DASHES.length] }));
      return h("button", { type: "button", title: one.name, "aria-pressed": String(!this.hidden.has(one.name)), onclick: (event) => {
        this.hidden.has(one.name) ? this.hidden.delete(one.name) : this.hidden.add(one.name);
        event.currentTarget.setAttribute("aria-pressed", String(!this.hidden.has(one.name)));
        this.draw();
      } }, line, h("span", {}, one.name));
    }));
  }

  draw() {
    const { options } = this;
    const width = this.svg.clientWidth, height = this.svg.clientHeight;
    if (!width || !height) return;
    const shown = this.shown().map((one) => ({ ...one, smooth: smoothed(one.y, options.smoothing || 0) }));
    const log = this.isLog();
    const xs = shown.flatMap((one) => one.x);
    let [x0, x1] = this.zoom || options.xRange || [min(xs), max(xs)];
    if (!Number.isFinite(x0)) [x0, x1] = [0, 1];
    if (x0 === x1) [x0, x1] = [x0 - 0.5, x1 + 0.5];
    const seen = shown.flatMap((one) => one.y.filter((value, i) => Number.isFinite(value) && one.x[i] >= x0 && one.x[i] <= x1));
    let [y0, y1] = options.yRange && !this.zoom ? options.yRange : [min(seen), max(seen)];
    if (!Number.isFinite(y0)) [y0, y1] = [0, 1];
    if (y0 === y1) [y0, y1] = log ? [y0 / 2, y1 * 2] : [y0 - (Math.abs(y0) || 1) * 0.1, y1 + (Math.abs(y1) || 1) * 0.1];
    else if (!options.yRange || this.zoom) [y0, y1] = log ? [y0 / (y1 / y0) ** 0.04, y1 * (y1 / y0) ** 0.04] : [y0 - (y1 - y0) * 0.04, y1 + (y1 - y0) * 0.04];
    const yTicks = log ? logTicks(y0, y1) : ticks(y0, y1, 5);
    const labels = yTicks.map(tickText);
    const left = 12 + 6.4 * Math.max(...labels.map((text) => text.length)), right = 10, top = (options.marks || []).length ? 24 : 14, bottom = 34;
    const toX = (value) => left + ((value - x0) / (x1 - x0)) * (width - left - right);
    const scale = log ? Math.log10 : (value) => value;
    const toY = (value) => height - bottom - ((scale(value) - scale(y0)) / (scale(y1) - scale(y0))) * (height - top - bottom);
    this.geometry = { x0, x1, toX, toValue: (px) => x0 + ((px - left) / (width - left - right)) * (x1 - x0), shown };
    const clip = `${this.id}-clip`;
    const parts = [s("clipPath", { id: clip }, s("rect", { x: left, y: top - 4, width: Math.max(width - left - right, 0), height: height - top - bottom + 8 }))];
    yTicks.forEach((value, i) => parts.push(s("line", { class: "grid", x1: left, x2: width - right, y1: toY(value), y2: toY(value) }),
      s("text", { x: left - 6, y: toY(value) + 4, "text-anchor": "end" }, labels[i])));
    let xTicks = [], wanted = Math.max(3, Math.floor((width - left) / 70));
    do xTicks = ticks(x0, x1, wanted).filter((value) => !options.whole || Number.isInteger(value));
    while (xTicks.length < 3 && ++wanted < 8);
    for (const value of xTicks)
      parts.push(s("text", { x: toX(value), y: height - bottom + 16, "text-anchor": "middle" }, tickText(value)));
    parts.push(s("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
      s("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, options.xLabel || "epoch"));
    const lines = s("g", { "clip-path": `url(#${clip})` });
    for (const one of shown) {
      const style = { fill: "none", stroke: one.faint ? "var(--line)" : `var(--c${one.color % COLORS})`, "stroke-dasharray": DASHES[(one.dash || 0) % DASHES.length], "stroke-width": one.wide ? 2.6 : one.faint ? 0.8 : 1.8, "stroke-linejoin": "round" };
      if (options.smoothing && !one.faint) lines.append(s("path", { ...style, d: pathOf(one.x, one.y, toX, toY, log), opacity: 0.28, "stroke-width": 1 }));
      lines.append(s("path", { ...style, d: pathOf(one.x, one.smooth, toX, toY, log) }));
      if (one.x.length < 12 && !one.faint && !options.fixed)
        one.smooth.forEach((value, i) => { if (Number.isFinite(value)) lines.append(s("circle", { cx: toX(one.x[i]), cy: toY(value), r: 2.6, fill: style.stroke })); });
    }
    parts.push(lines);
    for (const mark of options.marks || []) {
      if (mark.x < x0 || mark.x > x1) continue;
      const x = toX(mark.x), flip = x > width * 0.6;
      parts.push(s("line", { class: "mark", x1: x, x2: x, y1: top - 8, y2: height - bottom }),
        s("text", { class: "marked", x: x + (flip ? -5 : 5), y: top - 10, "text-anchor": flip ? "end" : "start" }, mark.label));
    }
    this.overlay = s("g", {});
    this.svg.replaceChildren(...parts, this.overlay);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("aria-label", this.description());
    this.resetButton.classList.toggle("hidden", !this.zoom);
    this.logButton.setAttribute("aria-pressed", String(log));
    this.point(this.cursor);
  }

  description() {
    const last = this.shown().filter((one) => !one.faint).slice(0, 8).map((one) => {
      const i = one.y.findLastIndex(Number.isFinite);
      return i < 0 ? `${one.name}: no values` : `${one.name}: ${number(one.y[i])} at ${number(one.x[i])}`;
    });
    return `${this.options.title}, line chart over ${this.options.xLabel || "epoch"}. Last values: ${last.join("; ")}. Arrow keys read values, plus and minus zoom, 0 shows the whole.`;
  }

  point(x) {
    this.cursor = x;
    if (!this.overlay) return;
    this.overlay.replaceChildren();
    if (x === null) { this.tip.textContent = ""; return; }
    const { toX, shown } = this.geometry;
    const grid = shown.filter((one) => one.x.length);
    if (!grid.length) return;
    const nearest = (list) => list.reduce((best, value, i) => (Math.abs(value - x) < Math.abs(list[best] - x) ? i : best), 0);
    const at = grid[0].x[nearest(grid[0].x)];
    const values = grid.filter((one) => !one.faint).map((one) => {
      const i = nearest(one.x);
      return `${one.name} ${number(one.smooth[i])}`;
    });
    this.overlay.append(s("line", { class: "cursor", x1: toX(at), x2: toX(at), y1: 10, y2: this.svg.clientHeight - 34 }));
    this.tip.textContent = `${this.options.xLabel || "epoch"} ${number(at, 3)}: ${values.slice(0, 12).join(", ")}${values.length > 12 ? ", ..." : ""}`;
  }

  place(event) { return event.clientX - this.svg.getBoundingClientRect().left; }
  down(event) { if (event.button === 0) { this.brush = [this.place(event), this.place(event)]; this.svg.setPointerCapture(event.pointerId); } }

  move(event) {
    if (!this.geometry) return;
    this.point(this.geometry.toValue(this.place(event)));
    if (!this.brush) return;
    this.brush[1] = this.place(event);
    const [a, b] = [...this.brush].sort((p, q) => p - q);
    this.overlay.append(s("rect", { class: "brush", x: a, width: b - a, y: 10, height: this.svg.clientHeight - 44 }));
  }

  up() {
    if (!this.brush) return;
    const [a, b] = this.brush.map((px) => this.geometry.toValue(px)).sort((p, q) => p - q);
    const wide = Math.abs(this.brush[1] - this.brush[0]) > 8;
    this.brush = null;
    if (wide) this.zoom = [Math.max(a, this.geometry.x0), Math.min(b, this.geometry.x1)];
    this.draw();
  }

  key(event) {
    if (!this.geometry || event.ctrlKey || event.metaKey || event.altKey) return;
    const { x0, x1, shown } = this.geometry;
    const points = [...new Set(shown.flatMap((one) => one.x))].filter((x) => x >= x0 && x <= x1).sort((a, b) => a - b);
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (step && points.length) {
      const near = this.cursor === null ? -step : points.reduce((best, x, i) => (Math.abs(x - this.cursor) < Math.abs(points[best] - this.cursor) ? i : best), 0);
      const next = this.cursor === null ? (step > 0 ? 0 : points.length - 1) : Math.min(Math.max(near + step, 0), points.length - 1);
      this.point(points[next]);
    } else if (event.key === "+" || event.key === "-") {
      const centre = this.cursor ?? (x0 + x1) / 2, factor = event.key === "+" ? 0.5 : 2;
      const all = shown.flatMap((one) => one.x), whole = this.options.xRange || [min(all), max(all)];
      this.zoom = [Math.max(whole[0], centre - (centre - x0) * factor), Math.min(whole[1], centre + (x1 - centre) * factor)];
      if (this.zoom[0] <= whole[0] && this.zoom[1] >= whole[1]) this.zoom = null;
      this.draw();
    } else if (event.key === "0" || event.key === "Escape") this.reset();
    else return;
    event.preventDefault();
  }
}

function min(values) { return values.reduce((a, b) => (Number.isFinite(b) && b < a ? b : a), Infinity); }
function max(values) { return values.reduce((a, b) => (Number.isFinite(b) && b > a ? b : a), -Infinity); }

function pathOf(xs, ys, toX, toY, log) {
  let path = "", open = false;
  xs.forEach((x, i) => {
    const y = ys[i];
    if (!Number.isFinite(y) || (log && y <= 0)) { return; }
    path += `${open ? "L" : "M"}${toX(x).toFixed(1)} ${toY(y).toFixed(1)}`;
    open = true;
  });
  return path;
}
