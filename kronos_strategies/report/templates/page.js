"use strict";

// Charts are drawn when they come near the screen, and all of them for print. On a touch screen a drag scrolls the
// page instead of zooming a chart.
const touch = matchMedia("(pointer: coarse)").matches;
const config = JSON.parse(document.getElementById("plotly-config").textContent);
config.displayModeBar = touch ? false : "hover";
const charts = new Map();
for (const source of document.querySelectorAll("script[data-chart]")) {
  const element = document.getElementById(source.dataset.chart);
  const selects = [...document.querySelectorAll(`select[data-dropdowns="${source.dataset.chart}"]`)];
  charts.set(element, { source, selects, figures: null });
}

function draw(element) {
  const chart = charts.get(element);
  chart.figures ??= JSON.parse(chart.source.textContent);
  const place = chart.selects.reduce((sum, select) => sum * select.options.length + select.selectedIndex, 0);
  const figure = chart.figures[place];
  element.classList.toggle("none", !figure);
  if (!figure) return Plotly.purge(element);
  if (touch) figure.layout.dragmode = false;
  if (touch && !figure.layout.showlegend) figure.layout.margin.t = 8;  // no buttons that need room
  return Plotly.react(element, figure.data, figure.layout, config);
}

const drawOnce = (element) => charts.get(element).figures ?? draw(element);
const near = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((each) => each.isIntersecting)) {
    near.unobserve(entry.target);
    drawOnce(entry.target);
  }
}, { rootMargin: "800px 0px" });
for (const [element, { selects }] of charts) {
  near.observe(element);
  for (const select of selects) select.addEventListener("change", () => draw(element));
}

const PRINTED_WIDTH = 660;  // of A4 and Letter between their margins
const PRINTED_HEIGHT = 224;  // unless a chart of categories has more rows
const resize = (size) => {
  for (const element of charts.keys()) if (element._fullLayout) Plotly.relayout(element, size(element));
};
addEventListener("beforeprint", () => {
  for (const element of charts.keys()) drawOnce(element);
  resize((element) => ({
    width: PRINTED_WIDTH,
    height: element.dataset.rows > 0 ? element.clientHeight : PRINTED_HEIGHT,
  }));
});
addEventListener("afterprint", () => resize(() => ({ width: null, height: null, autosize: true })));
