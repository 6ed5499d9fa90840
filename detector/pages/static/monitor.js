"use strict";
// The live page: the list of runs, one run, several runs over each other. It asks for what is new every other second.

(function () {
  const PAUSE = 2000;
  const runs = new Map(), selected = new Set(), curves = new Map();
  let revision = 0, defaults = {}, problems = [], view = null, lost = null, chosenByUser = false;
  const banner = h("p", { class: "problem hidden", role: "status" });
  const top = document.querySelector("header.top"), main = document.querySelector("main");

  async function ask(path, parameters = {}) {
    const reply = await fetch(`${path}?${new URLSearchParams(parameters)}`);
    if (!reply.ok) throw Object.assign(new Error(await reply.text()), { status: reply.status });
    return reply.json();
  }

  async function send(path, body) {
    const reply = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    if (!reply.ok) throw new Error(await reply.text());
  }

  function say(text) {
    banner.textContent = text || "";
    banner.classList.toggle("hidden", !text);
  }

  // ------------------------------------------------------------------ what is kept of runs

  /* Metrics of a run: columns that grow by the rows that are new. */
  async function fetchCurves(name) {
    if (!curves.has(name)) curves.set(name, { id: "", offset: 0, metrics: { epoch: [] } });
    const kept = curves.get(name);
    let changed = false, part;
    do {
      part = await ask("/api/metrics", { run: name, offset: kept.offset, id: kept.id });
      if (part.reset) kept.metrics = { epoch: [] };
      for (const row of part.rows) addRow(kept.metrics, row);
      changed ||= part.reset || part.rows.length > 0;
      Object.assign(kept, { id: part.id, offset: part.offset });
    } while (part.more);
    return changed;
  }

  function addRow(columns, row) {
    let at = columns.epoch.indexOf(row.epoch);
    if (at < 0) at = columns.epoch.push(row.epoch) - 1;
    for (const [key, value] of Object.entries(row)) {
      if (key === "time" || key === "epoch") continue;
      columns[key] ||= [];
      columns[key][at] = value;
    }
    for (const [key, list] of Object.entries(columns)) while (key !== "epoch" && list.length < columns.epoch.length) list.push(null);
    for (const list of Object.values(columns)) for (let i = 0; i < list.length; i++) list[i] ??= null;
  }

  async function fetchRuns() {
    const news = await ask("/api/runs", { since: revision });
    if (news.revision < revision) { runs.clear(); } // the server was started again
    revision = news.revision;
    Object.assign(defaults, news.defaults);
    problems = news.problems;
    news.gone.forEach((name) => { runs.delete(name); selected.delete(name); curves.delete(name); });
    news.runs.forEach((row) => runs.set(row.run, row));
    if (!chosenByUser && !selected.size) newest().slice(0, 3).forEach((row) => selected.add(row.run));
    return news.runs.length > 0 || news.gone.length > 0;
  }

  const newest = () => [...runs.values()].filter((row) => row.state !== "unreadable").sort((a, b) => String(b.started).localeCompare(String(a.started)));

  // ------------------------------------------------------------------ the list

  function settingOf(row, key) { return key in row.settings ? row.settings[key] : defaults[key] ?? "–"; }

  function differing(rows) {
    const keys = [...new Set(rows.flatMap((row) => Object.keys(row.settings)))];
    return keys.filter((key) => new Set(rows.map((row) => settingOf(row, key))).size > 1);
  }

  function starButton(row) {
    const button = h("button", { class: "star", type: "button", "aria-pressed": String(Boolean(row.star)), "aria-label": `star of ${row.title}` }, row.star ? "★" : "☆");
    button.addEventListener("click", () => act(async () => { await send("/api/note", { run: row.run, note: row.text || "", star: !row.star }); await tick(true); }));
    return button;
  }

  async function act(work) {
    try { await work(); say(""); } catch (error) { say(error.message); }
  }

  function listView() {
    const search = h("input", { type: "search", placeholder: "name, setting, note, state", "aria-label": "filter runs", oninput: () => render() });
    const differs = h("button", { type: "button", "aria-pressed": "false", class: "tiny", onclick: () => {
      differs.setAttribute("aria-pressed", String(differs.getAttribute("aria-pressed") === "false"));
      render();
    } }, "what differs");
    const place = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "runs" });
    const panel = new CurvePanel(), machine = h("p", { class: "small soft" }), chosen = h("p", { class: "small soft" });
    let table = null, layout = "";
    const metric = (key) => ({ key, title: key, value: (row) => row.best?.[`metrics/${key}`], show: (row) => row.best?.[`metrics/${key}`]?.toFixed(3) ?? "–" });
    const columns = (extra) => [
      { key: "title", title: "run", text: true, value: (row) => row.title, show: (row) => h("span", {}, h("input", { type: "checkbox", checked: selected.has(row.run), "aria-label": `show the curves of ${row.title}`, onchange: (event) => {
        chosenByUser = true;
        event.target.checked ? selected.add(row.run) : selected.delete(row.run);
        showCurves();
      } }), starButton(row), row.state === "unreadable" ? row.title : h("a", { href: `#run/${encodeURIComponent(row.run)}` }, row.title)) },
      { key: "state", title: "state", text: true, show: (row) => stateMark(row.state) },
      metric("mAP50-95"), metric("mAP50"),
      { key: "progress", title: "progress", show: (row) => h("span", { title: row.remark || row.stop_reason || "" }, progressBar(row.progress), ` ${row.epoch ?? "–"}/${row.epochs ?? "–"}`) },
      { key: "seconds", title: "duration", show: (row) => span(row.seconds) },
      { key: "started", title: "started", show: (row) => when(row.started) },
      ...extra.map((key) => ({ key: `setting ${key}`, title: key, text: true, value: (row) => settingOf(row, key) })),
      { key: "text", title: "note", text: true, value: (row) => row.text || "" },
    ];
    async function showCurves() {
      const names = [...selected].filter((name) => runs.has(name)).slice(0, 8);
      chosen.textContent = selected.size > 8 ? `the first 8 of ${selected.size} selected runs` : `${names.length} selected in the table`;
      await act(async () => { for (const name of names) await fetchCurves(name); });
      panel.update(names.map((name) => ({ name: runs.get(name).title, metrics: curves.get(name)?.metrics || { epoch: [] } })));
    }
    function render() {
      const wanted = search.value.trim().toLowerCase();
      const rows = [...runs.values()].filter((row) => !wanted || `${row.title} ${row.text} ${row.state} ${Object.entries(row.settings).map((pair) => pair.join("=")).join(" ")}`.toLowerCase().includes(wanted));
      const extra = differs.getAttribute("aria-pressed") === "true" ? differing(rows) : [];
      if (table === null || layout !== extra.join("\n")) {
        layout = extra.join("\n");
        table = sortableTable("runs", columns(extra), rows, { key: "started", up: false });
        place.replaceChildren(table);
      } else {
        if (place.contains(document.activeElement)) refocus(place);
        table.render(rows);
      }
      if (!runs.size) {
        place.replaceChildren(h("p", { class: "soft" }, "There is no run in this folder yet."));
        table = null;
      }
      problemList.replaceChildren(...problems.map((text) => h("li", {}, text)));
      problemBox.classList.toggle("hidden", !problems.length);
    }
    const problemList = h("ul", {}), problemBox = h("details", { class: "hidden" }, h("summary", {}, "folders that can't be read as runs"), problemList);
    main.replaceChildren(
      section("runs", "Runs", h("div", { class: "row" }, search, differs, machine), place, problemBox),
      section("curves", "Curves of the selected runs", chosen, panel.element));
    document.title = "runs – detector";
    return {
      async update(news) {
        if (news || table === null) render();
        const active = [...selected].some((name) => runs.get(name)?.state === "running");
        if (news || active || !panel.runs) await showCurves();
        machine.textContent = machineText(await ask("/api/machine"));
      },
    };
  }

  // a table that is drawn again keeps the keyboard where it was
  function refocus(place) {
    const label = document.activeElement?.getAttribute("aria-label") || document.activeElement?.textContent;
    queueMicrotask(() => [...place.querySelectorAll("a, button, input")].find((one) => (one.getAttribute("aria-label") || one.textContent) === label)?.focus());
  }

  function machineText(machine) {
    const parts = [];
    if (Number.isFinite(machine.load)) parts.push(`load ${machine.load.toFixed(1)} on ${machine.cores} cores`);
    if (machine.memory) parts.push(`memory ${machine.memory_used} of ${machine.memory} GB`);
    if (Number.isFinite(machine.disk_free)) parts.push(`${machine.disk_free} GB of disk free`);
    for (const gpu of machine.gpus || []) parts.push(`${gpu.name} ${Math.round(100 * gpu.use)} %, ${gpu.memory_used} of ${gpu.memory} GB`);
    return parts.length ? `This machine: ${parts.join(", ")}` : "";
  }

  // ------------------------------------------------------------------ one run

  function runView(name) {
    const row = () => runs.get(name);
    const head = h("div", {}), body = h("div", {}), tabs = h("div", { class: "tabs", role: "tablist", "aria-label": "parts of the run" });
    const panel = new CurvePanel(), logText = h("pre", { tabindex: 0, "aria-label": "log" }), log = { id: "", offset: 0 };
    const stop = h("button", { type: "button", class: "danger", onclick: () => {
      if (confirm("Stop this run after the current batch? Its weights are saved, it can be resumed.")) act(async () => { await send("/api/stop", { run: name }); stop.textContent = "stopping ..."; stop.disabled = true; });
    } }, "Stop");
    const note = h("textarea", { rows: 2, "aria-label": "note", placeholder: "a note on this run", maxlength: 4000 });
    const save = h("button", { type: "button", class: "tiny", onclick: () => act(async () => { await send("/api/note", { run: name, note: note.value, star: Boolean(row()?.star) }); save.textContent = "saved"; setTimeout(() => { save.textContent = "save note"; }, 1500); await tick(true); }) }, "save note");
    let run = null, evaluation = null, stamp = "none yet", imageStamps = "", noted = false;
    const parts = {
      curves: { title: "Curves", element: h("div", {}, panel.element), update: async () => { if ((await fetchCurves(name)) || !panel.runs) panel.update([{ name, metrics: curves.get(name).metrics }]); } },
      log: { title: "Log", element: logText, update: updateLog },
      images: { title: "Images", element: h("div", { class: "gallery" }), update: updateImages },
      validation: { title: "Validation", element: h("div", {}), update: updateEvaluation },
      settings: { title: "Settings and environment", element: h("div", {}), update: async () => {
        const shown = JSON.stringify([run.settings, run.status.data, run.status.hardware]);
        if (parts.settings.shown === shown) return;
        parts.settings.shown = shown;
        parts.settings.element.replaceChildren(section("settings", "Settings that differ from the defaults", settingsView(run)),
          section("timing", "Timing", timingView({ ...run, metrics: curves.get(name)?.metrics || {} }, evaluation)), section("environment", "Environment and data", environmentView(run)));
      } },
    };
    let current = "curves";
    const buttons = Object.entries(parts).map(([key, part]) => {
      part.element.id = `panel-${key}`;
      part.element.setAttribute("role", "tabpanel");
      return h("button", { type: "button", role: "tab", id: `tab-${key}`, "aria-controls": `panel-${key}`, "data-tab": key, onclick: () => show(key) }, part.title);
    });
    tabs.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!move) return;
      const next = buttons[(buttons.findIndex((button) => button.dataset.tab === current) + move + buttons.length) % buttons.length];
      next.focus();
      next.click();
    });
    function show(key) {
      current = key;
      buttons.forEach((button) => { button.setAttribute("aria-selected", String(button.dataset.tab === key)); button.tabIndex = button.dataset.tab === key ? 0 : -1; });
      body.replaceChildren(parts[key].element);
      if (run) act(parts[key].update);
    }

    async function updateLog() {
      let part;
      do {
        part = await ask("/api/log", { run: name, offset: log.offset, id: log.id });
        const atEnd = logText.scrollHeight - logText.scrollTop - logText.clientHeight < 40;
        if (part.reset) logText.textContent = "";
        logText.append(part.text);
        const extra = logText.textContent.length - 400000; // letters that are kept
        if (extra > 0) logText.textContent = logText.textContent.slice(extra);
        Object.assign(log, { id: part.id, offset: part.offset });
        if (atEnd) logText.scrollTop = logText.scrollHeight;
      } while (part.more);
      if (!logText.textContent) logText.textContent = "";
    }

    async function updateImages() {
      const images = await ask("/api/images", { run: name }), now = JSON.stringify(images);
      if (now === imageStamps) return;
      imageStamps = now;
      parts.images.element.replaceChildren(...(images.length ? images.map((image) => {
        const address = `/image?${new URLSearchParams({ run: name, name: image.name, stamp: image.stamp })}`;
        return h("figure", {}, h("figcaption", {}, image.title), h("a", { href: address, target: "_blank", rel: "noopener" }, h("img", { src: address, alt: image.title, loading: "lazy" })));
      }) : [h("p", { class: "soft" }, "There are no images yet.")]));
    }

    async function updateEvaluation() {
      const news = await ask("/api/evaluation", { run: name, stamp });
      if (news.stamp === stamp) return;
      stamp = news.stamp;
      evaluation = news.evaluation;
      parts.validation.element.replaceChildren(...evaluationSections(evaluation));
    }

    main.replaceChildren(head, h("div", { class: "row" }, h("div", { class: "grow" }, note), save), tabs, body);
    tabs.append(...buttons);
    show(current);
    return {
      async update() {
        run = await ask("/api/run", { run: name });
        const shown = JSON.stringify(run);
        if (this.shown !== shown) {
          this.shown = shown;
          const focused = head.contains(document.activeElement) && document.activeElement === stop;
          const known = row() || { run: name, title: run.name, star: run.star, text: run.text };
          head.replaceChildren(h("p", { class: "small" }, h("a", { href: "#" }, "← all runs")),
            h("div", { class: "title" }, h("h2", {}, run.name, " ", stateMark(run.state), starButton(known)), run.state === "running" ? stop : null),
            ...(run.state === "running" ? [progressBar(run.status.progress)] : []), summaryTiles(run), summaryText(run));
          if (focused) stop.focus();
          document.title = `${run.name}: ${run.state} – detector`;
        }
        if (!noted) { note.value = run.text; noted = true; }
        await parts[current].update();
      },
    };
  }

  // ------------------------------------------------------------------ routes and time

  function route() {
    const found = /^#run\/(.+)$/.exec(location.hash);
    let name = null;
    try { name = found && decodeURIComponent(found[1]); } catch { name = null; }
    say("");
    view = name ? runView(name) : listView();
    tick(true);
  }

  let timer = null, busy = false, again = false;
  async function tick(now = false) {
    if (busy) { again ||= now; return; }
    busy = true;
    clearTimeout(timer);
    const shown = view;
    try {
      const news = await fetchRuns();
      await shown.update(news || now);
      if (lost) say("");
      lost = null;
    } catch (error) {
      lost = error.status ? error.message : "No answer from the server; trying again.";
      say(lost);
    }
    busy = false;
    if (again || shown !== view) { again = false; tick(true); return; }
    timer = setTimeout(tick, document.hidden ? 5 * PAUSE : PAUSE);
  }

  top.append(h("h1", {}, h("a", { href: "#" }, "detector runs")), banner);
  document.querySelector("footer").textContent = "Read from the run folders every other second; only what is new is sent.";
  addEventListener("hashchange", route);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) tick(); });
  route();
})();
