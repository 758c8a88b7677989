// The page of `kronos serve`. Every text of the server is set as text, never as HTML.

const $ = (id) => document.getElementById(id);
const form = $("form");
const field = (name) => form.elements.namedItem(name);
const touch = matchMedia("(pointer: coarse)").matches;
let choices, listing, intraday, running, shown;

const GONE = "The server does not answer. Start kronos serve again.";

async function ask(path, options) {
  const answer = await fetch(path, options).catch(() => { throw new Error(GONE); });
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

function say(text, failed = false) {
  $("status").textContent = text;
  $("status").classList.toggle("failed", failed);
}

const guard = (work) => async (...given) => {
  try {
    return await work(...given);
  } catch (error) {
    say(error.message, true);
  }
};

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function fill(select, options) {
  select.replaceChildren(...options.map(([value, label]) => new Option(label, value)));
}

// Choices

const showData = guard(async () => {
  const key = field("data").value;
  say("Reading bars…");
  for (const id of ["start", "hold-back", "last-bar"]) $(id).disabled = true;
  const found = await ask(`/api/data/${encodeURIComponent(key)}`);
  if (field("data").value !== key) return;
  listing = new Map(found.instruments.map(([name, first, last]) => [name, { first, last }]));
  intraday = found.intraday;
  fill(field("instrument"), found.instruments.map(([name]) => [name, name]));
  field("as_of").type = intraday ? "datetime-local" : "date";
  const several = listing.size > 1;
  field("rank").closest("label").hidden = !several;
  field("rank").checked = several && listing.size <= 50;
  showInstrument();
  $("start").disabled = running !== undefined || listing.size === 0;
  for (const id of ["hold-back", "last-bar"]) $(id).disabled = listing.size === 0;
  say(found.notes.length === 1 ? found.notes[0] : `${listing.size.toLocaleString()} instruments`);
});

const local = (time) => (intraday ? time.replace(" ", "T") : time.slice(0, 10));

function showInstrument() {
  const known = listing.get(field("instrument").value);
  field("as_of").value = "";
  if (!known) return;
  field("as_of").min = local(known.first);
  field("as_of").max = local(known.last);
}

const holdBack = guard(async () => {
  const query = new URLSearchParams({ instrument: field("instrument").value });
  const times = await ask(`/api/data/${encodeURIComponent(field("data").value)}/times?${query}`);
  field("as_of").value = local(times[Math.max(0, times.length - 1 - (Number(field("horizon").value) || 1))]);
});

// A forecast: started, followed, canceled

function wait(id) {
  running = id;
  $("start").disabled = id !== undefined;
  $("cancel").hidden = id === undefined;
  $("progress").hidden = id === undefined;
  if (id !== undefined) $("progress").removeAttribute("value");
}

const start = guard(async () => {
  const number = (name) => (field(name).value === "" ? null : Number(field(name).value));
  const asked = {
    data: field("data").value,
    instrument: field("instrument").value,
    as_of: field("as_of").value.replace("T", " ") || null,
    model: field("model").value,
    calibration: field("calibration").value,
    horizon: number("horizon"),
    samples: number("samples"),
    lookback: number("lookback"),
    rank: field("rank").checked,
  };
  wait(null);
  say("Forecasting…");
  try {
    const headers = { "Content-Type": "application/json" };
    const { id } = await ask("/api/forecasts", { method: "POST", headers, body: JSON.stringify(asked) });
    wait(id);
    follow(id);
  } catch (error) {
    wait(undefined);
    throw error;
  }
});

function follow(id) {
  const events = new EventSource(`/api/forecasts/${id}/events`);
  const started = performance.now();
  let drawn = false;
  const end = (text, failed) => {
    events.close();
    wait(undefined);
    if (text) say(text, failed);
  };
  let before = Promise.resolve();  // events are handled one after another
  const on = (name, work) => events.addEventListener(name, (event) => {
    before = before.then(() => guard(work)(JSON.parse(event.data)));
  });
  on("progress", ({ done, total }) => {
    if (total < 2) return;
    $("progress").max = total;
    $("progress").value = done;
    say(`${done.toLocaleString()} of ${total.toLocaleString()} instruments`);
  });
  on("drawn", async () => {
    drawn = true;
    await show(id);
    if ($("chart-box").getBoundingClientRect().top > innerHeight / 2) $("chart-box").scrollIntoView();
  });
  on("done", async () => {
    end();
    await show(id);
    say(`Done in ${((performance.now() - started) / 1000).toFixed(1)} s.`);
  });
  on("canceled", () => end(drawn ? "Canceled: the table has the chosen instrument only." : "Canceled."));
  on("failed", ({ message }) => end(message, true));
  events.onerror = () => {
    if (events.readyState === EventSource.CLOSED) end(GONE, true);
  };
}

const cancel = guard(async () => {
  if (!running) return;
  say("Canceling…");
  await ask(`/api/forecasts/${running}`, { method: "DELETE" });
});

// Results

async function show(id) {
  const result = await ask(`/api/forecasts/${id}`);
  $("empty").hidden = true;
  $("result").hidden = false;
  $("settings").replaceChildren(...result.settings.map((line) => element("li", line)));
  $("warnings").hidden = result.warnings.length === 0;
  $("warnings").querySelector("ul").replaceChildren(...result.warnings.map((line) => element("li", line)));
  $("table-csv").href = `/api/forecasts/${id}/table.csv`;
  $("steps-csv").href = `/api/forecasts/${id}/steps.csv`;
  const head = element("tr");
  head.append(...result.heads.map((text, place) => element("th", text, place ? { scope: "col", class: "number" } : { scope: "col" })));
  $("table").tHead.replaceChildren(head);
  $("table").tBodies[0].replaceChildren(...result.rows.map(([name, ...cells]) => {
    const row = element("tr");
    const button = element("button", name, { type: "button", title: "Draw this instrument" });
    button.addEventListener("click", guard(async () => {
      await draw(id, name);
      $("chart-box").scrollIntoView({ block: "nearest" });
    }));
    const first = element("th", undefined, { scope: "row" });
    first.append(button);
    row.append(first, ...cells.map((cell) => element("td", cell, { class: "number" })));
    return row;
  }));
  if (shown?.id !== id) await draw(id, result.instrument);
  else mark(shown.name);
}

function mark(name) {
  for (const row of $("table").tBodies[0].rows) {
    if (row.cells[0].textContent === name) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
}

async function draw(id, name) {
  const query = new URLSearchParams({ instrument: name });
  const [chart] = await Promise.all([ask(`/api/forecasts/${id}/chart?${query}`), plotly()]);
  const { data, layout } = chart.figure;
  if (touch) layout.dragmode = false;  // a drag scrolls the page
  $("chart-box").hidden = false;
  if ($("chart").clientWidth < 500) thin(layout.xaxis);
  $("chart-title").textContent = chart.title;
  await Plotly.react($("chart"), data, layout, { ...choices.plotly, displayModeBar: touch ? false : "hover" });
  shown = { id, name };
  mark(name);
}

// Every second label, where all of them would overlap.
function thin(axis) {
  axis.tickvals = axis.tickvals.filter((_, place) => place % 2);
  axis.ticktext = axis.ticktext.filter((_, place) => place % 2);
}

// Loaded after the page is there, since it is large.
let loading;
function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = element("script", undefined, { src: "/static/plotly.js" });
    script.onload = resolve;
    script.onerror = () => reject(new Error("The chart library did not load. Reload the page."));
    document.head.append(script);
  });
  return loading;
}

// Reports

const KINDS = { report: "Report", comparison: "Comparison", forecast: "Forecast" };

const showReports = async () => {
  const status = $("reports-status");
  status.textContent = "Reading…";
  try {
    const { pages, notes } = await ask("/api/reports");
    const head = element("tr");
    head.append(...["kind", "title", "written", "rank IC", "source"].map((text) => element("th", text, { scope: "col" })));
    $("reports-table").tHead.replaceChildren(head);
    $("reports-table").tBodies[0].replaceChildren(...pages.map((page) => {
      const row = element("tr");
      const title = element("th", page.address ? undefined : page.title, { scope: "row" });
      if (page.address) title.append(element("a", page.title, { href: page.address, target: "_blank", rel: "noopener" }));
      const rank = page.metrics.rank_ic;
      row.append(
        element("td", KINDS[page.kind]), title, element("td", page.written, { class: "when" }),
        element("td", rank === undefined ? "–" : rank.toFixed(3)), element("td", page.source),
      );
      return row;
    }));
    $("reports-table").parentElement.hidden = pages.length === 0;
    const none = "There are none: name a tracking store with --tracking, or folders with --reports.";
    status.textContent = [...(pages.length ? [] : [none]), ...notes].join(" ");
  } catch (error) {
    status.textContent = error.message;
  }
};

// Start

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (running === undefined) start();
});
field("data").addEventListener("change", showData);
field("instrument").addEventListener("change", showInstrument);
$("hold-back").addEventListener("click", holdBack);
$("last-bar").addEventListener("click", () => { field("as_of").value = ""; });
$("cancel").addEventListener("click", cancel);
$("reports").addEventListener("toggle", () => { if ($("reports").open) showReports(); });

await guard(async () => {
  choices = await ask("/api/choices");
  fill(field("data"), choices.data.map(({ key, label }) => [key, label]));
  fill(field("model"), choices.models.map((name) => [name, name]));
  const labels = { auto: "auto: the checkpoint's own", none: "none" };
  fill(field("calibration"), choices.calibrations.map((name) => [name, labels[name] ?? name]));
  field("horizon").max = choices.limits.horizon;
  field("samples").max = choices.limits.samples;
  await showData();
  plotly();
})();
