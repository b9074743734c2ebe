"use strict";
(() => {
  const single = document.body.classList.contains("single");
  const spec = JSON.parse(document.getElementById("spec").textContent);
  // A tracker shows the page in a sandboxed frame, where neither a download nor a new window is allowed.
  document.body.classList.toggle("framed", window.parent !== window);
  const drawings = new WeakMap(); // section -> { groups, view, width }, once it was opened

  // A run's data: JSON, deflated, in base64. Unpacked when the run is opened.
  const unpacked = (section) => {
    const bytes = Uint8Array.from(atob(section.querySelector("script.data").textContent), (c) => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
  };

  // The same rule as charts.filled: data in, panels without data out; and the width of this screen.
  const filled = (drawn, width) => {
    const empty = {
      transitions: drawn.transitions.length === 0,
      learning_rate: drawn.windows.learning_rate.every((value) => value === null),
    };
    const [first, last] = drawn.steps;
    const panels = spec.vconcat.filter((panel) => !empty[panel.name]);
    return {
      ...spec,
      params: [{ name: "first", value: first }, { name: "last", value: last }, ...(spec.params || [])],
      config: { ...spec.config, legend: { ...spec.config.legend, columns: width < 420 ? 3 : 0 } },
      vconcat: panels.map((panel) => ({ ...panel, width })),
      datasets: { windows: [drawn.windows], stretches: drawn.stretches, transitions: drawn.transitions },
    };
  };

  const draw = async (section) => {
    const drawing = drawings.get(section);
    const holder = section.querySelector(".chart");
    const [name, drawn] = drawing.groups[Number(section.querySelector("select").value)];
    drawing.width = holder.clientWidth;
    if (drawing.view) drawing.view.finalize();
    drawing.view = await vegaEmbed(holder, filled(drawn, Math.max(drawing.width - 84, 160)), {
      mode: "vega-lite",
      renderer: "svg",
      actions: false,
      ast: true, // expressions are interpreted: the page's policy forbids evaluation
      defaultStyle: false,
      tooltip: { disableDefaultStyle: true },
    });
    holder.dataset.group = name;
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

  const download = (section) => {
    const address = URL.createObjectURL(new Blob([table(drawings.get(section).groups)], { type: "text/csv" }));
    const link = Object.assign(document.createElement("a"), { href: address, download: `${section.id}.csv` });
    link.click();
    URL.revokeObjectURL(address);
  };

  const opened = () => single
    ? document.querySelector("section.run")
    : document.querySelector(`section.run[id="${CSS.escape(location.hash.slice(1))}"]`); // :target is not set yet at load

  const prepare = async (section) => {
    drawings.set(section, { groups: await unpacked(section), view: null, width: 0 });
    const tools = section.querySelector(".tools");
    tools.querySelector("select").addEventListener("change", () => draw(section));
    tools.querySelector("button").addEventListener("click", () => download(section));
    await draw(section);
    tools.hidden = false;
  };

  const open = () => {
    const section = opened();
    if (!section) return;
    window.scrollTo(0, 0);
    section.focus({ preventScroll: true });
    if (section.querySelector("script.data") && !drawings.has(section)) prepare(section);
  };

  const search = () => {
    const field = document.getElementById("search");
    if (!field) return;
    const bodies = [...document.querySelectorAll("table.runs tbody")].map((body) => ({
      body,
      project: body.querySelector(".project").textContent.toLowerCase(),
      rows: [...body.querySelectorAll(".row")].map((row) => [row, row.textContent.toLowerCase()]),
    }));
    const total = bodies.reduce((sum, { rows }) => sum + rows.length, 0);
    const filter = () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let found = 0;
      for (const { body, project, rows } of bodies) {
        let here = 0;
        for (const [row, text] of rows) {
          const match = words.every((word) => text.includes(word) || project.includes(word));
          row.hidden = !match;
          here += match;
        }
        body.hidden = here === 0;
        found += here;
      }
      document.getElementById("nothing").hidden = found > 0;
      document.getElementById("found").value = words.length ? `${found} of ${total}` : "";
    };
    field.addEventListener("input", filter);
    field.closest(".tools").hidden = false;
    if (field.value) filter(); // the browser may keep the field's text over a reload
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && !opened() && document.activeElement !== field) {
        event.preventDefault();
        field.focus();
      } else if (event.key === "Escape" && opened() && !single) {
        location.hash = "";
      }
    });
  };

  search();
  window.addEventListener("hashchange", open);
  let waiting = 0;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const section = opened();
      const drawing = section && drawings.get(section);
      if (drawing && drawing.view && section.querySelector(".chart").clientWidth !== drawing.width) draw(section);
    }, 150);
  });
  open();
})();
