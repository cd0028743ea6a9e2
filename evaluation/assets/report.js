"use strict";
// Draws the charts. They share one time axis: zooming one zooms all, and each fits its height to what is seen.
(() => {
  const DAY = 86_400_000;
  const text = document.getElementById("payload").textContent;
  const { dark: darkOf, figures, window: whole } = JSON.parse(text);
  const charts = Object.keys(figures).map((id) => document.getElementById(id));
  const darkMode = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)").matches;
  const edge = 0.01 * (whole[1] - whole[0]) || DAY; // room for the first and the last marker
  const everything = [whole[0] - edge, whole[1] + edge];
  const narrow = matchMedia("(max-width: 700px)");
  let seen = null; // [from, to] in milliseconds, null: everything
  let log = figures.equity.layout.yaxis.type === "log";
  let busy = false;

  // Packed arrays become numbers, light colours dark ones where wanted.
  function revive(_, value) {
    if (value && value.bdata) {
      return new Float64Array(Uint8Array.from(atob(value.bdata), (c) => c.charCodeAt(0)).buffer);
    }
    return darkMode.matches && typeof value === "string" && value in darkOf ? darkOf[value] : value;
  }

  function milliseconds(when) {
    if (typeof when === "number") return when;
    return Date.parse(when.length > 10 ? when.replace(" ", "T") + "Z" : when);
  }

  // The lowest and highest value that a chart shows on one axis between two times.
  function extent(chart, axis, from, to) {
    let low = Infinity;
    let high = -Infinity;
    for (const trace of chart.data) {
      if ((trace.yaxis || "y") !== axis || trace.visible === "legendonly") continue;
      let before = NaN; // a line enters from the last point outside
      for (let i = 0; i < trace.x.length; i++) {
        if (trace.x[i] < from) before = trace.y[i];
        if (trace.x[i] < from || trace.x[i] > to) continue;
        low = Math.min(low, trace.y[i]);
        high = Math.max(high, trace.y[i]);
      }
      if (trace.mode === "lines" && !Number.isNaN(before)) {
        low = Math.min(low, before);
        high = Math.max(high, before);
      }
    }
    return [low, high];
  }

  // Ticks at 1, 2 and 5 on a log axis that spans enough of them, else what plotly thinks.
  function logStep(low, high) {
    return high / low > 4 ? "D2" : null;
  }

  function fitted(chart) {
    const update = {};
    const [from, to] = seen || [-Infinity, Infinity];
    update["xaxis.range"] = (seen || everything).slice();
    for (const key of Object.keys(chart.layout)) {
      if (!key.startsWith("yaxis")) continue;
      const axis = chart.layout[key];
      let [low, high] = extent(chart, key.replace("axis", ""), from, to);
      if (!seen || low > high) {
        update[key + ".autorange"] = true;
        if (axis.type === "log" && low < high) update[key + ".dtick"] = logStep(low, high);
        continue;
      }
      if (axis.rangemode === "tozero") {
        low = Math.min(low, 0);
        high = Math.max(high, 0);
      }
      if (axis.type === "log") {
        update[key + ".dtick"] = logStep(low, high);
        [low, high] = [Math.log10(low), Math.log10(high)];
      }
      const room = 0.06 * (high - low) || 0.01 * Math.abs(high) || 1;
      const touchesZero = axis.rangemode === "tozero";
      update[key + ".range"] = [touchesZero && low === 0 ? 0 : low - room, touchesZero && high === 0 ? 0 : high + room];
    }
    return update;
  }

  async function show(range) {
    seen = range;
    busy = true;
    await Promise.all(charts.map((chart) => Plotly.relayout(chart, fitted(chart))));
    busy = false;
    for (const button of document.querySelectorAll("button[data-days]")) {
      button.setAttribute("aria-pressed", String(button.days === (seen ? seen.days : Infinity)));
    }
  }

  function follow(event) {
    if (busy) return;
    if ("xaxis.range[0]" in event) {
      show([milliseconds(event["xaxis.range[0]"]), milliseconds(event["xaxis.range[1]"])]);
    } else if (event["xaxis.autorange"]) {
      show(null);
    }
  }

  function draw() {
    const drawn = JSON.parse(text, revive).figures;
    for (const chart of charts) {
      const { data, layout } = drawn[chart.id];
      if (touch) layout.dragmode = false; // a finger scrolls the page
      if (narrow.matches) {
        layout.font.size = 11;
        const rows = data.length > 3 && chart.id !== "equity" ? 2 : 1;
        layout.margin = { l: 40, r: 4, t: 26, b: data.length > 1 ? 42 + 22 * rows : 36 };
        layout.xaxis.nticks = 4;
        layout.legend = { ...layout.legend, x: 0, xanchor: "left", y: 0, yanchor: "bottom", yref: "container" };
      }
      layout.xaxis.range = everything.slice();
      if (chart.id === "equity") {
        layout.yaxis.type = log ? "log" : "linear";
        if (log) layout.yaxis.dtick = logStep(...extent({ data }, "y", -Infinity, Infinity));
      }
      const config = { responsive: true, displaylogo: false, displayModeBar: false, doubleClick: "reset" };
      Plotly.react(chart, data, layout, config);
      if (!chart.linked) {
        chart.linked = true;
        chart.on("plotly_relayout", follow);
      }
    }
    if (seen) show(seen);
  }

  function addButton(label, pressed, act) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.setAttribute("aria-pressed", String(pressed));
    button.addEventListener("click", () => act(button));
    document.getElementById("controls").append(button);
    return button;
  }

  function addControls() {
    const [first, last] = whole;
    const spans = [["1 week", 7], ["1 month", 30], ["3 months", 91], ["1 year", 365]];
    const fitting = spans.filter(([, days]) => days * DAY < last - first);
    for (const [label, days] of fitting.length ? [...fitting, ["All", Infinity]] : []) {
      const button = addButton(label, days === Infinity, () => {
        if (days === Infinity) return show(null);
        const range = [last - days * DAY, last + 0.01 * days * DAY];
        range.days = days;
        show(range);
      });
      button.days = days;
      button.dataset.days = days;
    }
    const lowest = Math.min(...charts[0].data.filter((trace) => !trace.yaxis).map((trace) => Math.min(...trace.y)));
    if (lowest > 0) {
      addButton("Log scale", log, (button) => {
        log = !log;
        button.setAttribute("aria-pressed", String(log));
        draw();
      });
    }
  }

  draw();
  addControls();
  darkMode.addEventListener("change", draw);
  narrow.addEventListener("change", draw);
})();
