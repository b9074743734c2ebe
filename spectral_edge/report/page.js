"use strict";
(() => {
  const single = document.body.classList.contains("single");
  const spec = JSON.parse(document.getElementById("spec").textContent);
  // A tracker shows the page in a sandboxed frame, where neither a download nor a new window is allowed.
  document.body.classList.toggle("framed", window.parent !== window);
  const overview = document.getElementById("overview");
  const packed = new Map([...document.querySelectorAll("script[data-run]")].map((one) => [one.dataset.run, one]));
  let open = null; // the run that is shown: { name, section, groups, drawn, embedded, width, steps }

  const DROPPED_BITS = 12; // as in packing.py

  // The inverse of packing.py: bytes by significance, sums along the windows, float32 with some bits of fraction.
  const numbers = (bytes) => {
    const count = bytes.length / 3;
    const kept = new Uint32Array(count);
    for (let i = 0, sum = 0; i < count; i += 1) {
      const zigzag = bytes[i] | (bytes[count + i] << 8) | (bytes[2 * count + i] << 16);
      sum += (zigzag >>> 1) ^ -(zigzag & 1);
      kept[i] = sum << DROPPED_BITS;
    }
    return Array.from(new Float32Array(kept.buffer), (x) => (Number.isFinite(x) ? Number(x.toPrecision(5)) : null));
  };

  const row = (values, window, windows, length) => {
    const list = Array.from({ length }, (_, j) => values[j * windows + window]);
    return list.slice(0, list.findLastIndex((value) => value !== null) + 1);
  };

  // What packing.py made of a run: its page as markup, and pairs of a group's name and what is drawn of it.
  const unpacked = async (name) => {
    const bytes = Uint8Array.from(atob(packed.get(name).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const whole = new Uint8Array(await new Response(stream).arrayBuffer());
    const end = whole.indexOf(10); // a line feed
    const { page, groups, lines } = JSON.parse(new TextDecoder().decode(whole.subarray(0, end)));
    const all = numbers(whole.subarray(end + 1));
    let start = 0;
    for (const [, { windows, measured }] of groups) {
      const count = windows.step.length;
      for (const [column, length] of measured) {
        const values = all.slice(start, (start += count * (length ?? 1)));
        windows[column] = length === undefined ? values : windows.step.map((_, i) => row(values, i, count, length));
      }
    }
    const metrics = lines.map(([name, beside, differences]) => {
      const values = all.slice(start, (start += differences.length));
      let step = 0;
      return differences.map((difference, i) => ({ name, beside, step: (step += difference), value: values[i], part: "" }));
    });
    for (const [, drawn] of groups) drawn.points = pointsOf(metrics.flat(), drawn);
    return { page, groups };
  };

  // As metric_lines.points_drawn: without values of a metric its means stand for them.
  const pointsOf = (points, { steps: [first, last], metric }) => {
    const inside = points.filter(({ step }) => first <= step && step <= last);
    return inside.length > 0 ? inside : metric.map((level) => ({ ...level, beside: true }));
  };

  // The same rule as charts.filled: data in, panels without data out; and the width of this screen.
  const filled = (drawn, width) => {
    const empty = {
      transitions: drawn.transitions.length === 0,
      metric: drawn.points.every((point) => !point.beside),
      further: drawn.points.every((point) => point.beside),
      learning_rate: drawn.windows.learning_rate.every((value) => value === null),
    };
    const [first, last] = drawn.steps;
    const steps = { first, last, whole_first: first, whole_last: last };
    const panels = spec.vconcat.filter((panel) => !empty[panel.name]);
    return {
      ...spec,
      params: [...Object.entries(steps).map(([name, value]) => ({ name, value })), ...(spec.params || [])],
      config: { ...spec.config, legend: { ...spec.config.legend, columns: width < 420 ? 3 : 0 } },
      vconcat: panels.map((panel) => ({ ...panel, width })),
      datasets: {
        windows: [drawn.windows],
        stretches: drawn.stretches,
        transitions: drawn.transitions,
        metric: drawn.metric,
        points: drawn.points,
      },
    };
  };

  const embedding = {
    mode: "vega-lite",
    renderer: "svg",
    actions: false,
    ast: true, // expressions are interpreted: the page's policy forbids evaluation
    defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
  };

  // The charts over all runs, once the page stands.
  const drawOverview = async () => {
    const holder = document.getElementById("over-time");
    if (!holder || overview.hidden || holder.dataset.width === String(holder.clientWidth)) return;
    holder.dataset.width = holder.clientWidth;
    const { spec: both, shares, changes } = JSON.parse(document.getElementById("over-time-data").textContent);
    const width = Math.max(holder.clientWidth - 138, 120);
    const panels = both.vconcat.filter((panel) => panel.name !== "changes" || changes.length > 0);
    const vconcat = panels.map((panel) => ({ ...panel, width }));
    const config = { ...both.config, legend: { ...both.config.legend, columns: width < 420 ? 3 : 0 } };
    await vegaEmbed(holder, { ...both, config, vconcat, datasets: { shares, changes } }, embedding);
  };

  const draw = async (run) => {
    const holder = run.section.querySelector(".chart");
    const [name, drawn] = run.groups[Number(run.section.querySelector("select").value)];
    run.drawn = drawn;
    run.width = holder.clientWidth;
    if (run.embedded) run.embedded.finalize();
    run.embedded = await vegaEmbed(holder, filled(drawn, Math.max(run.width - 84, 160)), embedding);
    run.embedded.view.addSignalListener("looked_at", (_, marked) => { if (marked.step) look(run, marked.step); });
    for (const one of holder.querySelectorAll("g[role=graphics-symbol]:not([aria-label])")) {
      one.removeAttribute("role"); // Vega names the marks, and not what holds them, which is said to be a picture
      one.removeAttribute("aria-roledescription");
    }
    run.section.querySelector(".group").textContent = name;
    const windows = run.section.querySelector(".window");
    windows.max = drawn.windows.step.length - 1;
    windows.value = windows.max;
    await look(run, run.steps);
    holder.dataset.group = name;
  };

  // All panels show the steps from one to another; those of the whole run when `steps` is null or nothing lies between.
  const look = async (run, steps) => {
    const [first, last] = run.drawn.steps;
    const [from, to] = (steps || [first, last]).map((step) => Math.round(Math.min(Math.max(step, first), last)));
    run.steps = from < to && (from > first || to < last) ? [from, to] : null;
    const [one, other] = run.steps || [first, last];
    run.section.querySelector(".from").value = one;
    run.section.querySelector(".to").value = other;
    run.section.querySelector(".whole").disabled = run.steps === null;
    await run.embedded.view.signal("first", one).signal("last", other).runAsync();
    read(run);
  };

  // The numbers of one window in words, and a line across the panels at its step: for those who use no pointer.
  const read = (run) => {
    const windows = run.drawn.windows;
    const slider = run.section.querySelector(".window");
    const at = Number(slider.value);
    const step = windows.step[at];
    const told = (value) => (value === null || value === undefined ? "unknown" : String(Number(value.toPrecision(3))));
    const list = (values) => values.slice(0, 4).map(told).join(", ") + (values.length > 4 ? ", \u2026" : "");
    const degrees = windows.rotation_degrees[at];
    const parts = [
      `step ${step.toLocaleString("en")}${windows.short[at] ? " (short window)" : ""}`,
      `singular values ${list(windows.singular_values[at])}`,
      `k* ${windows.k_star[at] ?? "unknown"}`,
      `gap ratio ${told(windows.gap_ratio[at])}`,
      `overlap ${list(windows.overlap[at]) || "unknown"}`,
      `rotation ${told(degrees)}${degrees === null ? "" : "\u00b0"}`,
      `change of the Gram matrix ${told(windows.gram_change_relative[at])}`,
      `learning rate ${told(windows.learning_rate[at])}`,
      `regime ${windows.regime[at] ?? "undetermined"}`,
    ];
    run.section.querySelector(".reading output").value = parts.join("; ");
    slider.setAttribute("aria-valuetext", parts[0]);
    mark(run, step, document.activeElement === slider);
  };

  const mark = (run, step, wanted) => {
    run.section.querySelector(".cursor")?.remove();
    const panel = run.section.querySelector(".chart .singular_values_group .background");
    const [first, last] = run.steps || run.drawn.steps;
    if (!wanted || !panel || step < first || step > last) return;
    const [charts, chart] = [".charts", ".chart"].map((one) => run.section.querySelector(one));
    const [within, across] = [charts.getBoundingClientRect(), panel.getBoundingClientRect()];
    const line = Object.assign(document.createElement("div"), { className: "cursor" });
    line.style.left = `${across.left - within.left + (across.width * (step - first)) / Math.max(last - first, 1)}px`;
    line.style.top = `${chart.offsetTop}px`;
    line.style.height = `${chart.offsetHeight}px`;
    charts.append(line);
  };

  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text; // no formula in a sheet
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };

  const spread = (prefix, lists) => {
    const longest = Math.max(0, ...lists.map((list) => list.length));
    return Array.from({ length: longest }, (_, j) => [`${prefix}_${j + 1}`, lists.map((list) => list[j])]);
  };

  const table = (groups) => {
    const rows = new Map();
    const all = groups.map(([name, { windows }]) => {
      const columns = Object.entries(windows).flatMap(([column, values]) =>
        values.length > 0 && Array.isArray(values[0]) ? spread(column, values) : [[column, values]]);
      columns.forEach(([column]) => rows.set(column, true));
      return [name, new Map(columns), windows.step.length];
    });
    const header = [...rows.keys()];
    const lines = all.flatMap(([name, columns, length]) => Array.from({ length }, (_, i) =>
      [name, ...header.map((column) => (columns.get(column) || [])[i])].map(cell).join(",")));
    return [["group", ...header].join(","), ...lines, ""].join("\r\n");
  };

  const save = (text, type, name) => {
    const address = URL.createObjectURL(new Blob([text], { type }));
    Object.assign(document.createElement("a"), { href: address, download: name }).click();
    URL.revokeObjectURL(address);
  };

  // Outside of the page nothing gives colours their names.
  const picture = async (run) => {
    const style = getComputedStyle(document.documentElement);
    const svg = await run.embedded.view.toSVG();
    return svg.replace(/var\((--[a-z0-9-]+)\)/g, (_, name) => style.getPropertyValue(name).trim());
  };

  const tools = (run) => {
    const part = (selector) => run.section.querySelector(`.charts ${selector}`);
    const chosen = () => look(run, [Number(part(".from").value), Number(part(".to").value)]);
    part("select").addEventListener("change", () => draw(run));
    part(".from").addEventListener("change", chosen);
    part(".to").addEventListener("change", chosen);
    part(".whole").addEventListener("click", () => look(run, null));
    part(".csv").addEventListener("click", () => save(table(run.groups), "text/csv", `${run.name}.csv`));
    part(".svg").addEventListener("click", async () => save(await picture(run), "image/svg+xml", `${run.name}.svg`));
    part(".window").addEventListener("input", () => read(run));
    part(".window").addEventListener("focus", () => read(run));
    part(".window").addEventListener("blur", () => read(run));
    part(".tools").hidden = false;
    part(".reading").hidden = false;
  };

  const show = async (name) => {
    const { page, groups } = await unpacked(name);
    if (!single && location.hash.slice(1) !== name) return; // another was opened meanwhile
    if (!single) {
      leave();
      overview.hidden = true;
      overview.insertAdjacentHTML("afterend", page);
    }
    const section = document.querySelector("section.run");
    open = { name, section, groups, drawn: null, embedded: null, width: 0, steps: null };
    window.scrollTo(0, 0);
    section.focus({ preventScroll: true });
    if (groups.length === 0) return;
    const run = open;
    await draw(run);
    tools(run);
  };

  const leave = () => {
    if (!open) return;
    if (open.embedded) open.embedded.finalize();
    open.section.remove();
    open = null;
  };

  let place = 0; // where the overview was left
  const follow = () => {
    const name = location.hash.slice(1);
    if (packed.has(name)) {
      if (!open) place = window.scrollY;
      show(name);
    } else if (open) {
      leave();
      overview.hidden = false;
      window.scrollTo(0, place);
      drawOverview();
    }
  };

  const search = () => {
    const field = document.getElementById("search");
    if (!field) return;
    const bodies = [...document.querySelectorAll("table.runs tbody")].map((body) => ({
      body,
      name: body.querySelector(".project").textContent.toLowerCase(),
      rows: [...body.querySelectorAll(".row")].map((row) => [row, row.textContent.toLowerCase()]),
    }));
    const total = bodies.reduce((sum, { rows }) => sum + rows.length, 0);
    const [project, outcome] = ["project", "outcome"].map((id) => document.getElementById(id));
    const filter = () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let found = 0;
      bodies.forEach(({ body, name, rows }, index) => {
        let here = 0;
        for (const [row, text] of rows) {
          const match = words.every((word) => text.includes(word) || name.includes(word))
            && (!project.value || Number(project.value) === index)
            && (!outcome.value || row.dataset.outcome === outcome.value);
          row.hidden = !match;
          here += match;
        }
        body.hidden = here === 0;
        found += here;
      });
      document.getElementById("nothing").hidden = found > 0;
      document.getElementById("found").value =
        words.length || project.value || outcome.value ? `${found} of ${total}` : "";
    };
    project.addEventListener("change", filter);
    outcome.addEventListener("change", filter);
    field.addEventListener("input", filter);
    field.closest(".tools").hidden = false;
    filter(); // the browser may keep the field's text over a reload
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && !open && document.activeElement !== field) {
        event.preventDefault();
        field.focus();
      } else if (event.key === "Escape" && open) {
        location.hash = "";
      }
    });
  };

  search();
  let waiting = 0;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      drawOverview();
      if (open && open.embedded && open.section.querySelector(".chart").clientWidth !== open.width) draw(open);
    }, 150);
  });
  if (single) {
    show(packed.keys().next().value);
  } else {
    window.addEventListener("hashchange", follow);
    follow();
    setTimeout(drawOverview); // the table of runs first
  }
})();
