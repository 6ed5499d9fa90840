"use strict";
// The report: everything is in the page, nothing is fetched.

(function () {
  const run = JSON.parse(document.getElementById("data").textContent);
  const main = document.querySelector("main");
  const panel = new CurvePanel();
  const sections = [
    guarded("summary", "Summary", () => [summaryTiles(run), summaryText(run)]),
    guarded("settings", "Settings that differ from the defaults", () => settingsView(run)),
    guarded("curves", "Curves", () => { panel.update([{ name: run.name, metrics: run.metrics }]); return panel.element; }),
    ...evaluationSections(run.evaluation),
    guarded("timing", "Timing", () => timingView(run, run.evaluation)),
    guarded("environment", "Environment and data", () => environmentView(run)),
    run.labels && guarded("labels", "Labels", () => h("div", { class: "labels" }, h("img", { src: `data:image/jpeg;base64,${run.labels}`, alt: "objects of each class, where their centres are, their sizes, and how many an image has" }))),
    run.log && guarded("log", "End of the log", () => h("pre", { tabindex: 0 }, run.log)),
  ].filter(Boolean);
  const links = sections.filter((one) => one.id).map((one) => h("a", { href: `#${one.id}` }, one.querySelector("h2").textContent));
  document.querySelector("header.top").append(h("h1", {}, run.name, " ", stateMark(run.state)), h("nav", { class: "toc", "aria-label": "sections" }, links));
  main.replaceChildren(...(run.problems || []).map((text) => h("p", { class: "problem" }, text)), ...sections);
  document.querySelector("footer").textContent = `Written by detector ${run.version} on ${when(run.written)}.`;
})();
