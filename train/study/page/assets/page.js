// The curves of the page: one pair of charts a section, from the JSON in #curves. Tables and text need no script.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("curves").textContent);
  // As in figures.py: solid, dash-dot, dotted with Lookahead; dashed, dash-dot-dot, long dashes without.
  const DASHES = [[], [9, 3, 2, 3], [2, 3], [7, 4], [9, 3, 2, 3, 2, 3], [14, 5]];
  const SVG = "http://www.w3.org/2000/svg";
  const charts = [];

  // Bands are stored by their distances from the mean.
  for (const curve of data.curves) {
    for (const column of Object.values(curve)) {
      if (!column.below) continue;
      const away = (distance, sign) =>
        column.mean.map((value, i) => (value === null || distance[i] === null ? null : value + sign * distance[i]));
      [column.low, column.high] = [away(column.below, -1), away(column.above, 1)];
    }
  }

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === true) made.setAttribute(name, "");
      else if (value !== false) made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (variant) => css(`--series-${variant.colour}`);

  /** A short piece of the variant's line, as charts draw it. */
  function swatch(variant) {
    const svg = document.createElementNS(SVG, "svg");
    const line = document.createElementNS(SVG, "line");
    for (const [name, value] of [["width", 26], ["height", 10], ["aria-hidden", "true"], ["class", "swatch"]]) {
      svg.setAttribute(name, value);
    }
    const place = [["x1", 1], ["x2", 25], ["y1", 5], ["y2", 5], ["class", `stroke-${variant.colour}`]];
    for (const [name, value] of [...place, ["stroke-dasharray", DASHES[variant.dash].join(" ")]]) {
      line.setAttribute(name, value);
    }
    svg.append(line);
    return svg;
  }

  const number = (value) =>
    value === null || value === undefined ? "–" : String(Number(value.toPrecision(Math.abs(value) >= 100 ? 5 : 4)));

  // Axes

  /** Ticks of a logarithmic axis: 1, 2, 5 of each decade, or finer where the axis is short. */
  function logTicks(low, high) {
    for (const digits of [[1], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]]) {
      const found = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
        for (const digit of digits) {
          const value = Number((digit * 10 ** power).toPrecision(3));
          if (value >= low && value <= high) found.push(value);
        }
      }
      if (found.length >= 3) return found;
    }
    return linearTicks(low, high);
  }

  function linearTicks(low, high) {
    const rough = (high - low) / 6;
    const unit = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((m) => m * unit >= rough) * unit;
    const found = [];
    for (let i = Math.ceil(low / step); i * step <= high * (1 + 1e-9); i++) found.push(Number((i * step).toPrecision(6)));
    return found;
  }

  // One chart

  /** What a variant shows of a quantity: its slow weights' where they are asked for and there are any. */
  function columns(variant, quantity, slow) {
    const curve = variant.curve === null ? null : data.curves[variant.curve];
    if (!curve) return null;
    return (slow && curve[`slow_${quantity}`]) || curve[quantity] || null;
  }

  class Chart {
    constructor(section, state, side) {
      [this.section, this.state, this.side] = [section, state, side];
      this.place = element("div", { class: "chart", tabindex: "0", role: "group" });
      this.heading = element("figcaption");
      this.figure = element("figure", {}, this.heading, this.place);
      this.tooltip = element("div", { class: "tooltip", role: "status" });
      this.place.addEventListener("keydown", (event) => this.key(event));
      new ResizeObserver(() => this.resize()).observe(this.place);
      charts.push(this);
    }

    get quantity() {
      return this.side === "train" ? this.section.train : this.state.test;
    }

    /** Series of the chart: what uPlot is told, and beside it whose line each is. */
    series() {
      const { section, state, quantity } = this;
      const found = [];
      section.variants.forEach((variant, index) => {
        if (!state.on.has(index)) return;
        const ours = columns(variant, quantity, state.slow && this.side === "test");
        const logged = state.reference && variant.reference !== null ? data.references[variant.reference][quantity] : null;
        if (ours || logged) found.push({ variant, ours, logged });
      });
      return found;
    }

    draw() {
      const shown = this.series();
      const log = this.state.log && !this.quantity.endsWith("accuracy");
      const slow = this.state.slow && this.side === "test";
      const clean = (column) => (log ? column.map((value) => (value > 0 ? value : null)) : column);
      const lengths = shown.flatMap(({ ours, logged }) => [ours ? ours.mean.length : 0, logged ? logged.length : 0]);
      const epochs = Array.from({ length: Math.max(1, ...lengths) }, (_, index) => index + 1);
      const padded = (column) => [...clean(column), ...Array(epochs.length - column.length).fill(null)];
      const [table, series, bands] = [[epochs], [{ label: "epoch" }], []];
      const add = (column, how) => table.push(padded(column)) && series.push({ points: { show: false }, ...how });
      for (const { variant, ours, logged } of shown) {
        const stroke = colour(variant);
        if (ours && ours.low) {
          bands.push({ series: [series.length + 1, series.length], fill: `${stroke}2e` });
          add(ours.low, { band: true });
          add(ours.high, { band: true });
        }
        const dots = ours && ours.mean.length === 1;
        if (ours) add(ours.mean, { stroke, width: 2, dash: DASHES[variant.dash], points: { show: dots, size: 8 } });
        if (logged) add(logged, { stroke, width: 1, dash: [4, 3] });
      }
      const label = data.labels[(slow ? "slow_" : "") + this.quantity] || data.labels[this.quantity];
      this.heading.textContent = label + (log ? " (log)" : "");
      this.place.setAttribute("aria-label", `${label} over epochs; use the arrow keys to move between epochs`);
      Object.assign(this.place.dataset, {
        quantity: (slow ? "slow_" : "") + this.quantity,
        series: JSON.stringify(shown.filter((s) => s.ours).map((s) => s.variant.label)),
        references: JSON.stringify(shown.filter((s) => s.logged).map((s) => s.variant.label)),
      });
      this.shown = shown;
      if (this.plot) this.plot.destroy();
      this.plot = new uPlot(this.options(series, bands, log), table, this.place);
      this.place.dataset.scale = this.plot.scales.y.distr === 3 ? "log" : "linear";
      this.plot.over.append(this.tooltip);
      this.tooltip.hidden = true;
    }

    options(series, bands, log) {
      const axis = { stroke: css("--muted"), grid: { stroke: css("--grid"), width: 1 }, ticks: { show: false } };
      const font = `12px ${getComputedStyle(document.body).fontFamily}`;
      const room = (low, high) => Math.max((high / low) ** 0.06, 1.002);
      const highest = this.quantity.endsWith("accuracy") ? 102 : Infinity;
      const padded = (_, low, high) => {
        if (log) return [low / room(low, high), high * room(low, high)];
        // Equal values get a range around them; uPlot's would begin at zero.
        const [from, to] = low === high ? [low - 1, high + 1] : uPlot.rangeNum(low, high, 0.08, false);
        return [from, Math.min(to, highest)];
      };
      const empty = (_, low) => low === null || low === undefined;
      return {
        ...this.size(),
        series,
        bands,
        legend: { show: false },
        padding: [8, 12, 0, 0],
        scales: {
          x: { time: false },
          y: { distr: log ? 3 : 1, range: (u, low, high) => (empty(u, low) ? [1, 10] : padded(u, low, high)) },
        },
        axes: [
          { ...axis, font, size: 34, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] },
          {
            ...axis,
            font,
            size: 52,
            splits: (_, __, low, high) => (log ? logTicks : linearTicks)(low, high),
            filter: (_, ticks) => ticks,
            values: (_, ticks) => ticks.map(number),
          },
        ],
        cursor: {
          sync: { key: this.section.id, setSeries: false },
          y: false,
          points: { size: (_, index) => (series[index].band ? 0 : 8) },
        },
        hooks: { setCursor: [(plot) => this.point(plot)] },
      };
    }

    size() {
      const width = Math.max(240, this.place.clientWidth);
      return { width, height: Math.round(Math.min(340, Math.max(230, width * 0.58))) };
    }

    resize() {
      if (this.plot && this.plot.width !== this.size().width) this.plot.setSize(this.size());
    }

    /** Shows the values of the epoch under the cursor. */
    point(plot) {
      const { idx, left } = plot.cursor;
      const at = (column) => (column && idx < column.length ? column[idx] : null);
      const rows = idx === null || idx === undefined || left < 0 ? [] : this.shown.filter((s) => at(s.ours?.mean) !== null || at(s.logged) !== null);
      // Where the charts are one below the other, the other one's values would cover this one.
      const alone = matchMedia("(max-width: 760px)").matches && !this.place.matches(":hover, :focus");
      this.tooltip.hidden = !rows.length || alone;
      if (this.tooltip.hidden) return;
      const several = rows.some((row) => row.ours?.low);
      const logged = rows.some((row) => row.logged);
      const head = ["", `epoch ${idx + 1}`, ...(several ? ["seeds"] : []), ...(logged ? [data.reference] : [])];
      const body = rows.map(({ variant, ours, logged: log }) => {
        const reach = ours?.low && at(ours.low) !== null ? `${number(at(ours.low))} – ${number(at(ours.high))}` : "";
        const cells = [number(at(ours?.mean)), ...(several ? [reach] : []), ...(logged ? [number(at(log))] : [])];
        const name = element("th", { scope: "row" }, swatch(variant), element("span", {}, variant.label));
        return element("tr", {}, name, ...cells.map((cell) => element("td", {}, cell)));
      });
      const header = element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)));
      this.tooltip.replaceChildren(element("table", {}, element("thead", {}, header), element("tbody", {}, ...body)));
      // Beside the cursor, on whichever side has more room, and never beyond the window.
      const over = plot.over.getBoundingClientRect();
      const { offsetWidth: width, offsetHeight: height } = this.tooltip;
      const side = left > over.width / 2 ? left - width - 14 : left + 14;
      const edge = document.documentElement.clientWidth - 6;
      const x = Math.max(6 - over.left, Math.min(side, edge - over.left - width));
      const y = x < left && x + width > left ? -height - 6 : 6;
      this.tooltip.style.transform = `translate(${x}px, ${y}px)`;
    }

    key(event) {
      const last = this.plot.data[0].length - 1;
      const now = this.plot.cursor.idx ?? -1;
      const to = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: last }[event.key];
      if (event.key === "Escape") this.plot.setCursor({ left: -10, top: -10 });
      if (to === undefined) return;
      event.preventDefault();
      const left = this.plot.valToPos(this.plot.data[0][Math.max(0, Math.min(last, to))], "x");
      this.plot.setCursor({ left, top: this.plot.over.clientHeight / 2 });
    }
  }

  // The switches of a section

  function choice(section, name, legend, choices, chosen, onChange) {
    const labels = choices.map(([value, text]) => {
      const input = element("input", { type: "radio", name: `${section.id}-${name}`, value, checked: value === chosen });
      input.addEventListener("change", () => onChange(value));
      return element("label", {}, input, element("span", {}, text));
    });
    return element("fieldset", { class: "choice" }, element("legend", {}, legend), ...labels);
  }

  function build(section) {
    const place = document.getElementById(`charts-${section.id}`);
    const has = (test) => section.variants.some((v) => v.curve !== null && test(data.curves[v.curve]));
    const drawn = section.variants.flatMap((v, index) => (v.curve !== null || v.reference !== null ? [index] : []));
    const state = { on: new Set(drawn), log: true, slow: false, reference: true, test: section.test[0] };
    const pair = [new Chart(section, state, "train"), new Chart(section, state, "test")];
    const change = (what) => {
      Object.assign(state, what);
      pair.forEach((chart) => chart.draw());
    };
    const switches = element("div", { class: "switches" });
    const scales = [["log", "logarithmic"], ["linear", "linear"]];
    switches.append(choice(section, "scale", "Loss axis", scales, "log", (value) => change({ log: value === "log" })));
    if (section.test.length > 1) {
      const tests = section.test.map((quantity) => [quantity, data.labels[quantity].replace(/, %$/, "")]);
      switches.append(choice(section, "test", "Test", tests, state.test, (value) => change({ test: value })));
    }
    if (has((curve) => Object.keys(curve).some((quantity) => quantity.startsWith("slow_")))) {
      const weights = [["live", "live"], ["slow", "slow"]];
      const set = (value) => change({ slow: value === "slow" });
      switches.append(choice(section, "weights", "Weights tested", weights, "live", set));
    }
    const check = (text, set, ...mark) => {
      const input = element("input", { type: "checkbox", checked: true });
      input.addEventListener("change", () => set(input.checked));
      return element("label", {}, input, ...mark, element("span", {}, text));
    };
    if (section.variants.some((v) => v.reference !== null)) {
      const label = check("thin dashes", (reference) => change({ reference }));
      switches.append(element("fieldset", { class: "choice reference" }, element("legend", {}, "Reference"), label));
    }
    const variants = section.variants.map((variant, index) => {
      if (!drawn.includes(index)) return "";
      const set = (on) => {
        state.on[on ? "add" : "delete"](index);
        change({});
      };
      return check(variant.label, set, swatch(variant));
    });
    const names = element("fieldset", { class: "variants" }, element("legend", {}, "Variants"), ...variants);
    const hint = element("p", { class: "hint" }, data.hint);
    place.replaceChildren(names, switches, element("div", { class: "pair" }, ...pair.map((c) => c.figure)), hint);
    pair.forEach((chart) => chart.draw());
  }

  data.sections.forEach(build);

  // Colours follow the theme; paper is always light.
  const redraw = () => charts.forEach((chart) => chart.draw());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  for (const [event, paper] of [["beforeprint", true], ["afterprint", false]]) {
    addEventListener(event, () => {
      document.documentElement.toggleAttribute("data-paper", paper);
      redraw();
    });
  }
})();
