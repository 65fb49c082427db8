"use strict";
(() => {
  const read = (id) => {
    const node = document.getElementById(id);
    return node ? JSON.parse(node.textContent) : [];
  };
  const numbers = (text) => {
    const raw = atob(text), bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return new Float64Array(bytes.buffer);
  };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const make = (name, parent, text) => {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  };
  const shown = (value) => {
    if (Number.isNaN(value)) return "NaN";
    if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e7 || size < 1e-4) return value.toExponential(3).replace(/\.?0+e/, "e").replace("e+", "e").replace("-", "−");
    return String(Number(value.toPrecision(6))).replace("-", "−");
  };
  const ticks = (low, high, wanted) => {
    const raw = (high - low) / Math.max(1, wanted), power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 5, 10].find((one) => one * power >= raw * 0.999);
    const found = [];
    if (!(step > 0) || !Number.isFinite(step)) return [low];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9 && found.length < 50; n++) found.push(n * step);
    return found;
  };
  const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3]];
  const swatch = (tint, dashes) => {
    let from = 0;
    const stops = dashes.map((long, n) => `${n % 2 ? "transparent" : tint} ${from}px ${(from += long)}px`);
    return stops.length ? `repeating-linear-gradient(90deg, ${stops.join(", ")})` : tint;
  };
  // The first place whose value is not below.
  const place = (values, wanted) => {
    let low = 0, high = values.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (values[middle] < wanted) low = middle + 1; else high = middle;
    }
    return low;
  };

  class Chart {
    constructor(figure, chart) {
      this.figure = figure;
      this.lines = chart.lines.map((line) => ({ ...line, x: numbers(line.x), y: numbers(line.y), on: true }));
      this.log = false;
      const head = make("div", figure);
      head.className = "head";
      make("h3", head, chart.title);
      this.reset = make("button", head, "reset");
      this.reset.hidden = true;
      this.reset.onclick = () => this.zoom(null);
      this.logButton = make("button", head, "log");
      this.logButton.title = "Logarithmic scale";
      this.logButton.setAttribute("aria-pressed", "false");
      this.logButton.onclick = () => {
        this.log = !this.log;
        this.logButton.setAttribute("aria-pressed", String(this.log));
        this.draw();
      };
      const save = make("button", head, "PNG");
      save.title = "Save as a picture";
      save.onclick = () => this.save(chart.title);
      this.canvas = make("canvas", figure);
      this.canvas.setAttribute("role", "img");
      this.canvas.setAttribute("aria-label", chart.title + ": " + this.lines.map((line) => line.name).join(", "));
      this.tip = make("div", figure);
      this.tip.className = "tip";
      this.legend = make("div", figure);
      this.legend.className = "legend";
      for (const line of this.lines) {
        const button = make("button", this.legend);
        line.swatch = make("i", button);
        make("span", button, line.name);
        button.setAttribute("aria-pressed", "true");
        button.onclick = () => {
          line.on = !line.on;
          button.setAttribute("aria-pressed", String(line.on));
          this.draw();
        };
      }
      this.range = null;
      this.listen();
      new ResizeObserver(() => this.draw()).observe(this.canvas);
    }

    listen() {
      const canvas = this.canvas;
      const at = (event) => event.clientX - canvas.getBoundingClientRect().left;
      canvas.onpointerdown = (event) => {
        if (event.button) return;
        this.from = at(event);
        canvas.setPointerCapture(event.pointerId);
      };
      canvas.onpointermove = (event) => this.hover(at(event), event);
      canvas.onpointerup = (event) => {
        const from = this.from, to = at(event);
        this.from = undefined;
        if (from !== undefined && Math.abs(to - from) > 5 && this.toX) {
          const ends = [this.toX(Math.min(from, to)), this.toX(Math.max(from, to))];
          if (ends[1] > ends[0]) this.zoom(ends);
        } else this.draw();
      };
      canvas.onpointerleave = () => {
        this.tip.style.display = "none";
        if (this.from === undefined) this.draw();
      };
      canvas.ondblclick = () => this.zoom(null);
    }

    zoom(range) {
      this.range = range;
      this.reset.hidden = !range;
      this.tip.style.display = "none";
      this.draw();
    }

    extent() {
      let x0 = Infinity, x1 = -Infinity, y0 = Infinity, y1 = -Infinity;
      for (const line of this.lines) {
        if (!line.on || !line.x.length) continue;
        x0 = Math.min(x0, line.x[0]);
        x1 = Math.max(x1, line.x[line.x.length - 1]);
      }
      if (this.range) [x0, x1] = this.range;
      for (const line of this.lines) {
        if (!line.on) continue;
        const last = Math.min(line.x.length - 1, place(line.x, x1 + Number.EPSILON) + 1);
        for (let i = Math.max(0, place(line.x, x0) - 1); i <= last; i++) {
          const y = line.y[i];
          if (Number.isFinite(y) && (!this.log || y > 0)) {
            if (y < y0) y0 = y;
            if (y > y1) y1 = y;
          }
        }
      }
      if (!(x1 >= x0)) [x0, x1] = [0, 1];
      if (x1 === x0) [x0, x1] = [x0 - 0.5, x1 + 0.5];
      if (!(y1 >= y0)) [y0, y1] = this.log ? [0.1, 10] : [0, 1];
      if (this.log) {
        [y0, y1] = [Math.log10(y0), Math.log10(y1)];
        if (y1 - y0 < 0.3) [y0, y1] = [y0 - 0.15, y1 + 0.15];
      }
      if (y1 === y0) {
        const room = Math.abs(y0) * 0.1 || 1;
        [y0, y1] = [y0 - room, y1 + room];
      }
      const room = (y1 - y0) * 0.05;
      return [x0, x1, y0 - room, y1 + room];
    }

    draw() {
      const canvas = this.canvas, ratio = window.devicePixelRatio || 1;
      const width = canvas.clientWidth, height = canvas.clientHeight;
      if (!width || !height) return;
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      const pen = canvas.getContext("2d");
      pen.scale(ratio, ratio);
      pen.font = "12px system-ui, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif";
      const [x0, x1, y0, y1] = this.extent();
      const vertical = this.yTicks(y0, y1, height);
      const left = 12 + Math.max(...vertical.map(([, text]) => pen.measureText(text).width), 8);
      const box = { left, right: width - 8, top: 8, bottom: height - 24 };
      const px = (x) => box.left + ((x - x0) / (x1 - x0)) * (box.right - box.left);
      const py = (y) => box.bottom - ((y - y0) / (y1 - y0)) * (box.bottom - box.top);
      this.toX = (at) => x0 + ((Math.min(Math.max(at, box.left), box.right) - box.left) / (box.right - box.left)) * (x1 - x0);
      Object.assign(this, { px, py, box });
      pen.strokeStyle = colour("--line");
      pen.fillStyle = colour("--quiet");
      pen.lineWidth = 1;
      pen.textBaseline = "middle";
      pen.textAlign = "right";
      for (const [value, text] of vertical) {
        const y = Math.round(py(value)) + 0.5;
        pen.beginPath();
        pen.moveTo(box.left, y);
        pen.lineTo(box.right, y);
        pen.stroke();
        pen.fillText(text, box.left - 6, y);
      }
      pen.textAlign = "center";
      pen.textBaseline = "top";
      let free = 0;
      for (const value of ticks(x0, x1, (box.right - box.left) / 90)) {
        const text = shown(value), half = pen.measureText(text).width / 2;
        const x = Math.min(Math.max(px(value), box.left + half - 6), box.right - half);
        if (x - half < free) continue;
        pen.fillText(text, x, box.bottom + 7);
        free = x + half + 10;
      }
      pen.save();
      pen.beginPath();
      pen.rect(box.left, box.top - 4, box.right - box.left + 4, box.bottom - box.top + 8);
      pen.clip();
      for (const line of this.lines) this.stroke(pen, line, x0, x1);
      pen.restore();
    }

    yTicks(y0, y1, height) {
      if (!this.log) return ticks(y0, y1, height / 48).map((value) => [value, shown(value)]);
      const whole = ticks(y0, y1, height / 48).filter((value) => Math.abs(value - Math.round(value)) < 1e-9);
      const used = whole.length > 1 ? whole : ticks(y0, y1, height / 48);
      return used.map((value) => [value, shown(10 ** value)]);
    }

    stroke(pen, line, x0, x1) {
      const tint = colour("--c" + (line.colour % 8));
      const dashes = DASHES[line.dashes % DASHES.length];
      line.swatch.style.background = swatch(tint, dashes);
      line.tint = tint;
      if (!line.on) return;
      pen.strokeStyle = pen.fillStyle = tint;
      pen.lineWidth = 1.6;
      pen.lineJoin = "round";
      pen.setLineDash(dashes);
      const first = Math.max(0, place(line.x, x0) - 1), last = Math.min(line.x.length - 1, place(line.x, x1) + 1);
      const dots = (last - first) * 22 < this.box.right - this.box.left, edges = [];
      let alone = null, going = false;
      pen.beginPath();
      for (let i = first; i <= last; i++) {
        const raw = line.y[i], y = this.log ? (raw > 0 ? Math.log10(raw) : NaN) : raw, x = this.px(line.x[i]);
        if (!Number.isFinite(y)) {
          if (alone) edges.push(alone);
          if (Math.abs(raw) === Infinity) edges.push([x, raw > 0 ? this.box.top : this.box.bottom, raw > 0 ? -1 : 1]);
          alone = null;
          going = false;
          continue;
        }
        const at = [x, this.py(y), 0];
        if (going) { pen.lineTo(at[0], at[1]); alone = null; } else { pen.moveTo(at[0], at[1]); alone = at; }
        going = true;
        if (dots) edges.push(at);
      }
      if (alone) edges.push(alone);
      pen.stroke();
      pen.setLineDash([]);
      for (const [x, y, way] of edges) {
        pen.beginPath();
        if (way) { pen.moveTo(x - 5, y); pen.lineTo(x + 5, y); pen.lineTo(x, y + way * -7); } else pen.arc(x, y, 2.4, 0, 7);
        pen.fill();
      }
    }

    hover(at, event) {
      if (!this.toX) return;
      this.draw();
      const pen = this.canvas.getContext("2d"), box = this.box;
      if (this.from !== undefined) {
        pen.fillStyle = colour("--accent") + "33";
        pen.fillRect(Math.min(at, this.from), box.top, Math.abs(at - this.from), box.bottom - box.top);
        this.tip.style.display = "none";
        return;
      }
      const wanted = this.toX(at);
      let nearest = null;
      const found = [];
      for (const line of this.lines) {
        if (!line.on || !line.x.length) continue;
        let i = place(line.x, wanted);
        if (i && (i === line.x.length || wanted - line.x[i - 1] < line.x[i] - wanted)) i--;
        const distance = Math.abs(line.x[i] - wanted);
        found.push({ line, i });
        if (!nearest || distance < nearest.distance) nearest = { distance, x: line.x[i] };
      }
      if (!nearest) return;
      const rows = found.filter(({ line, i }) => Math.abs(this.px(line.x[i]) - this.px(nearest.x)) < 8);
      const x = this.px(nearest.x);
      pen.strokeStyle = colour("--quiet");
      pen.lineWidth = 1;
      pen.beginPath();
      pen.moveTo(x, box.top);
      pen.lineTo(x, box.bottom);
      pen.stroke();
      const up = event.clientY - this.canvas.getBoundingClientRect().top;
      const height = ({ line, i }) => this.py(this.log ? Math.log10(line.y[i]) : line.y[i]);
      rows.sort((a, b) => Math.abs(height(a) - up) - Math.abs(height(b) - up) || 0);
      this.tip.replaceChildren();
      make("div", this.tip, "at " + shown(nearest.x)).className = "quiet";
      for (const { line, i } of rows.slice(0, 12)) {
        const row = make("div", this.tip);
        make("i", row).style.background = line.tint;
        make("span", row, line.name);
        make("b", row, shown(line.y[i]));
        const y = height({ line, i });
        if (Number.isFinite(y)) {
          pen.fillStyle = line.tint;
          pen.beginPath();
          pen.arc(x, y, 3.5, 0, 7);
          pen.fill();
        }
      }
      if (rows.length > 12) make("div", this.tip, "and " + (rows.length - 12) + " more").className = "quiet";
      const tip = this.tip.style;
      tip.display = "block";
      const room = this.canvas.clientWidth;
      tip.left = x > room / 2 ? Math.max(0, x - this.tip.offsetWidth - 14) + "px" : x + 14 + "px";
      tip.top = this.canvas.offsetTop + 12 + "px";
    }

    save(name) {
      const copy = document.createElement("canvas"), from = this.canvas;
      copy.width = from.width;
      copy.height = from.height;
      this.draw();
      const pen = copy.getContext("2d");
      pen.fillStyle = colour("--card");
      pen.fillRect(0, 0, copy.width, copy.height);
      pen.drawImage(from, 0, 0);
      const link = make("a");
      link.href = copy.toDataURL("image/png");
      link.download = name.replace(/[^\w.-]+/g, "_") + ".png";
      link.click();
    }
  }

  const charts = read("chart-data");
  const made = [...document.querySelectorAll("[data-chart]")].map((node) => new Chart(node, charts[node.dataset.chart]));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => made.forEach((chart) => chart.draw()));
  for (const button of document.querySelectorAll("[data-everything]")) {
    button.onclick = () => {
      const on = document.body.classList.toggle("everything");
      button.setAttribute("aria-pressed", String(on));
    };
  }

  const figures = read("figure-data");
  const pictures = () => {
    const ink = colour("--ink"), line = colour("--line");
    for (const node of document.querySelectorAll("[data-figures]")) {
      const own = node.dataset.figures.split(",").map(Number);
      const plot = node.querySelector(".plot"), choice = node.querySelector("select");
      const draw = () => {
        const { data, layout } = figures[own[choice ? choice.selectedIndex : 0]];
        const axis = { gridcolor: line, zerolinecolor: line, linecolor: line };
        const clear = "rgba(0,0,0,0)", scene = { xaxis: { ...axis, color: ink }, yaxis: { ...axis, color: ink }, zaxis: { ...axis, color: ink } };
        const template = {
          layout: {
            paper_bgcolor: clear, plot_bgcolor: clear, font: { color: ink }, scene,
            colorway: [0, 1, 2, 3, 4, 5, 6, 7].map((i) => colour("--c" + i)),
            xaxis: { ...axis, automargin: true }, yaxis: { ...axis, automargin: true }, margin: { l: 50, r: 20, t: 40, b: 40 },
          },
          data: {
            ...Object.fromEntries(["heatmap", "surface", "contour", "histogram2d"].map((kind) => [kind, [{ colorscale: "Viridis" }]])),
            table: [{ header: { fill: { color: colour("--tag") }, line: { color: line }, font: { color: ink } },
              cells: { fill: { color: colour("--card") }, line: { color: line }, font: { color: ink } } }],
          },
        };
        const page = { modebar: { bgcolor: clear, color: colour("--quiet"), activecolor: ink }, ...layout,
          template: layout.template || template, autosize: true };
        delete page.width;
        delete page.height;
        Plotly.newPlot(plot, data, page, { responsive: true, displaylogo: false }).catch((error) => { plot.textContent = String(error); });
      };
      if (choice) choice.onchange = draw;
      try { draw(); } catch (error) { plot.textContent = "This figure cannot be drawn: " + error; }
    }
  };
  const packed = document.getElementById("plotly-code");
  if (packed && figures.length) {
    const bytes = Uint8Array.from(atob(packed.textContent), (one) => one.charCodeAt(0));
    packed.remove();
    const fail = (error) => document.querySelectorAll(".plot").forEach((node) => { node.textContent = "Plots cannot be drawn: " + error; });
    try {
      new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text().then((code) => {
        make("script", document.head, code);
        pictures();
      }).catch(fail);
    } catch (error) { fail(error); }
  }
  document.documentElement.dataset.ready = "yes";
})();
