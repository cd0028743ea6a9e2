"use strict";
// Draws the charts, in the colours that the reader's system asks for.
(() => {
  const text = document.getElementById("payload").textContent;
  const { dark: darkOf, figures } = JSON.parse(text);
  const darkMode = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 700px)");
  const touch = matchMedia("(pointer: coarse)").matches;

  // Packed arrays become numbers, light colours dark ones where wanted.
  function revive(_, value) {
    if (value && value.bdata) {
      return new Float64Array(Uint8Array.from(atob(value.bdata), (c) => c.charCodeAt(0)).buffer);
    }
    return darkMode.matches && typeof value === "string" && value in darkOf ? darkOf[value] : value;
  }

  function draw() {
    const drawn = JSON.parse(text, revive).figures;
    for (const id of Object.keys(figures)) {
      const { data, layout } = drawn[id];
      if (touch) layout.dragmode = false; // a finger scrolls the page
      if (narrow.matches) {
        layout.font.size = 11;
        layout.margin = { l: 44, r: 4, t: 26, b: 64 };
        layout.xaxis.nticks = 4;
        layout.legend = { ...layout.legend, x: 0, xanchor: "left", y: 0, yanchor: "bottom", yref: "container" };
      }
      const config = { responsive: true, displaylogo: false, displayModeBar: false, doubleClick: "reset" };
      Plotly.react(document.getElementById(id), data, layout, config);
    }
  }

  draw();
  darkMode.addEventListener("change", draw);
  narrow.addEventListener("change", draw);
})();
