// The page: its cards, its filters, and what stands on every page.

// ---- Cards ----

const NONE = "No data for this selection";
const isNumber = (column, value) =>
  typeof value === "number" || (typeof value === "string" && /^-?\d+(\.\d+)?$/.test(value) && column !== "run_id");

const WRONG = new Set(["late", "failed", "stopped", "died", "unbalanced", "incomplete", "never ran"]);
const LONG = 60; // characters of a text that is broken into lines

// The heads of a card's table, with the currency where a column has money of one.
function headsOf(card, columns) {
  const figures = Object.fromEntries(card.figures.map((figure) => [figure.name, figure]));
  return columns.map((column) => {
    if (figures[column]) return withUnit(figures[column].label, figures[column].format);
    return withUnit(heading(column), card.fold && column === card.fold[1] ? card.figures[0].format : null);
  });
}

// A card's figures to their last digit as CSV. What a spreadsheet would run as a formula gets an apostrophe in front.
function csvOf(card, { rows, time }) {
  const field = (value) => {
    const text = value === null ? "" : isCell(value) ? value.text || "" : String(value);
    const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const columns = card.compared
    ? ["from", card.figures[0].name]
    : card.result.map((column) => (time && column === card.grain ? time.grain : column));
  return [headsOf(card, columns), ...rows].map((row) => `${row.map(field).join(",")}\r\n`).join("");
}

function save(card) {
  const period = card.filters.includes("period") ? `-${state.from}-${state.to}` : "";
  const name = card.title.toLowerCase().replace(/\W+/g, "-");
  const url = URL.createObjectURL(new Blob(["\ufeff", csvOf(card, boxes.get(card).found)], { type: "text/csv" }));
  make("a", { href: url, download: `${page.slug}-${name}${period}.csv` }).click();
  URL.revokeObjectURL(url);
}

function tableOf(card, { rows, time }) {
  const figures = Object.fromEntries(card.figures.map((figure) => [figure.name, figure]));
  const columns = card.result.map((column) => (time && column === card.grain ? time.grain : column));
  const labels = headsOf(card, columns);
  const numeric = card.result.map((column, place) =>
    rows.some((row) => isCell(row[place]) || (card.columns.length && isNumber(column, row[place]))),
  );
  // A column's numbers have as many decimals as the one with most.
  const digits = card.result.map((_, place) =>
    Math.min(
      2,
      Math.max(
        0,
        ...rows.map((row) =>
          card.columns.length && numeric[place] && row[place] !== null
            ? (String(row[place]).split(".")[1] || "").length
            : 0,
        ),
      ),
    ),
  );
  function cell(row, place) {
    const [column, value] = [columns[place], row[place]];
    if (isCell(value)) {
      const format = card.fold
        ? card.figures.find((figure) => figure.label === row[place - 1]).format
        : figures[column].format;
      return make(
        "td",
        { class: "number", "data-value": value.text === null ? "" : value.text },
        bare(value.number, format),
      );
    }
    const raw = value === null ? "" : String(value);
    let text = value === null && card.columns.length ? "–" : valueText(column, value);
    if (card.columns.length && numeric[place] && value !== null) text = grouped(Number(value), digits[place]);
    else if (/^\d{4}-\d\d-\d\d \d\d:\d\d/.test(raw)) text = `${dayText(raw.slice(0, 10))}, ${raw.slice(11, 16)}`;
    const kind = WRONG.has(raw) ? "late" : numeric[place] ? "number" : raw.length > LONG ? "long" : undefined;
    return make(
      place === 0 ? "th" : "td",
      { scope: place === 0 ? "row" : undefined, class: kind, "data-value": raw },
      text,
    );
  }
  const body = make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((_, place) => cell(row, place)))));
  const heads = labels.map((label, place) => {
    const head = make("th", { scope: "col", class: numeric[place] ? "number" : undefined });
    head.append(make("button", { type: "button", onclick: () => sortBy(place, head) }, label));
    return head;
  });
  function sortBy(place, head) {
    const down = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : numeric[place];
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (line) => {
      const text = line.children[place].dataset.value;
      return text === "" ? null : numeric[place] ? Number(text) : text;
    };
    const sorted = [...body.children].sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      return a === null || b === null ? byText(a, b) : byText(a, b) * (down ? -1 : 1);
    });
    body.replaceChildren(...sorted);
  }
  return make(
    "div",
    {
      class: "scroll",
      tabindex: "0",
      role: "region",
      "aria-label": `Table: ${card.title}${isCoarser(card, time) ? `, by ${time.grain}` : ""}`,
    },
    make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body),
  );
}

function changeOf(card, before, now, days) {
  const period = days === 1 ? "the day before" : `the ${grouped(days, 0)} days before`;
  if (before === null || now === null)
    return [make("b", {}, "–"), ` no figure for ${before === null ? period : "this period"}`];
  const points = card.figures[0].format === "percent";
  if (!points && before === 0)
    return [make("b", {}, "–"), now === 0 ? ` none in ${period} either` : ` none in ${period}`];
  const change = points ? now - before : (100 * (now - before)) / Math.abs(before);
  const rounded = Math.round(change * 10) / 10;
  if (rounded === 0) return [make("b", {}, "No change"), ` against ${period}`];
  const sign = rounded > 0 ? "+" : "";
  return [make("b", {}, `${sign}${grouped(rounded, 1)}${THIN}${points ? "points" : "%"}`), ` against ${period}`];
}

// The figure itself, in a size that lets it stand on one line.
function valueOf(now, format) {
  const text = big(now.number, format);
  const [number, unit] = text.endsWith(page.currency) ? [text.slice(0, -4), page.currency] : [text, null];
  return make(
    "p",
    {
      class: "value",
      style: `--characters:${Math.max(6, number.length + (unit ? 2 : 0))}`,
      "data-value": now.text === null ? "" : now.text,
      title: shown(now.number, format),
    },
    number,
    unit && make("span", { class: "unit" }, `${THIN}${unit}`),
  );
}

function headline(card, found) {
  const format = card.figures[0].format;
  const now = found.rows[found.rows.length - 1][card.compared ? 1 : 0];
  const parts = [valueOf(now, format)];
  if (card.goal !== null && now.number !== null) {
    const reached = now.number >= card.goal;
    parts.push(
      make(
        "p",
        { class: "goal" },
        make("span", { class: reached ? "reached" : "missed" }, reached ? "✓ reached" : "✗ below"),
        ` the goal of ${shown(card.goal, format).replace(".0", "")}`,
      ),
    );
  }
  if (card.compared) {
    const before = found.rows[0][1];
    const told =
      found.isKnown || card.begins === null
        ? changeOf(card, before.number, now.number, found.days)
        : [make("b", {}, "–"), ` not compared: data begin ${dayText(card.begins)}`];
    parts.push(make("p", { class: "change", "data-before": before.text === null ? "" : before.text }, ...told));
  }
  return parts;
}

const drawn = new Map(); // what a card's chart needs to be let go

async function chart(card, found, box, body) {
  const data = plotted(card, found);
  const isEmpty = !data.points.some((point) => point.v !== null && (card.chart !== "pie" || point.v > 0));
  if (!found.found || isEmpty) {
    body.replaceChildren(make("p", { class: "empty" }, NONE));
    return;
  }
  // Cards of one size are of one height: the plot takes what its legend and its note leave.
  const plot = make("div", { class: "plot" });
  body.replaceChildren(plot);
  const width = Math.max(220, Math.floor(plot.getBoundingClientRect().width));
  const { entries, draw: drawing, note } = CHARTS[card.chart](card, data, width);
  if (card.goal !== null)
    entries.push(["dash", "color:var(--ink)", `goal ${shown(card.goal, card.figures[0].format).replace(".0", "")}`]);
  if (entries.length) body.append(legendOf(entries, card.chart));
  const notes = notesOf([coarser(card, found.time), beginning(card), partSteps(card, data), note, leftOut(card, found)]);
  body.append(...notes);
  const spec = drawing(Math.max(130, card.size[1] * 52 - body.getBoundingClientRect().height));
  plot.setAttribute("role", "img");
  plot.setAttribute(
    "aria-label",
    [
      `${card.title}. ${card.answers} A chart of ${plural(data.points.length, "value")}; the table below it has the same numbers.`,
      ...notes.map((note) => note.textContent),
    ].join(" "),
  );
  const inner = make("div");
  plot.append(inner);
  const whole = {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    autosize: { type: "fit", contains: "padding" },
    padding: { left: 2, right: 8, top: 6, bottom: 2 },
    config: CONFIG,
    ...spec,
  };
  const view = await window.vegaEmbed(inner, whole, {
    ast: true,
    renderer: "svg",
    actions: false,
    defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
  });
  drawn.set(card, view);
}

function notesOf(sentences) {
  const said = sentences.filter(Boolean);
  return said.length ? [make("p", { class: "note" }, said.join(" "))] : [];
}

const isCoarser = (card, time) => Boolean(time) && time.grain !== card.grain;

// In which steps a chart is drawn, where they are not those of the card.
function coarser(card, time) {
  if (!isCoarser(card, time)) return null;
  const period = `${dayText(time.first)} to ${dayText(time.last)}`;
  return `By ${time.grain} instead of by ${card.grain}: ${period} are more than ${plural(time.most, card.grain)}.`;
}

// A month, or another step, of which the period has a part only: it is drawn hollow or pale, and said.
function partSteps(card, data) {
  const ends = [...cutSteps(card, data.axis, data.xs)].map(([x, { from, to }]) => {
    const parts = [from && `from ${shortDay(from)}`, to && `up to ${shortDay(to)}`].filter(Boolean);
    return `${valueText(data.axis, x)} ${parts.join(" ")}`;
  });
  const text = ends.join(", ");
  return text ? `Part of a ${data.axis}: ${text}.` : null;
}

// Since when a chart can tell what it shows, where its period begins before that.
function beginning(card) {
  if (!card.begins || !card.filters.includes("period") || state.from >= card.begins) return null;
  return `Known from ${dayText(card.begins)} on.`;
}

// What a card with a limit does not show: how many rows, and what these come to where that is a sum.
function leftOut(card, { rows, left }) {
  if (!left || left.of === rows.length) return null;
  const [figure] = card.figures;
  const place = card.result.length - (card.fold ? 1 : card.figures.length);
  const whole = left.rows.reduce((sum, row) => sum + (row[place].number || 0), 0);
  const beyond = page.tables[card.table].left.sums[figure.column] / 10 ** page.tables[card.table].places[figure.column];
  const others =
    figure.per === null && !card.fold ? `: the others come to ${shown(whole + beyond, figure.format)}` : "";
  return `The first ${rows.length} of ${grouped(left.of, 0)}${others}.`;
}

const boxes = new Map();

function frame(card) {
  const isHeadline = card.chart === "headline";
  const id = `card-${page.cards.indexOf(card)}`;
  const box = make("section", {
    class: `card ${isHeadline ? "headline" : card.chart}${card.size[0] <= 6 ? " half" : ""}`,
    id,
    style: `grid-column: span ${card.size[0]}`,
    "aria-labelledby": `${id}-title`,
    "data-card": card.title,
  });
  const answers = make("p", { class: "answers" }, card.answers);
  const csv = make("button", { type: "button", class: "csv", "aria-label": `CSV: ${card.title}` }, "CSV");
  csv.addEventListener("click", () => save(card));
  const body = make("div", { class: isHeadline ? "figure" : "body" });
  const unfiltered = make("p", { class: "note", hidden: true });
  box.append(
    make(
      "h2",
      { id: `${id}-title`, title: card.definition || undefined },
      card.title,
      card.definition && make("span", { class: "defined", tabindex: "0", role: "note", "aria-label": card.definition }, "i"),
    ),
    ...(isHeadline ? [body, unfiltered, answers] : [answers, unfiltered, body]),
  );
  const one = { box, body, unfiltered };
  if (card.chart === "table") box.classList.add("shown");
  else if (!isHeadline) {
    one.behind = make("details", { class: "behind" }, make("summary", {}, "Table"));
    one.behind.addEventListener("toggle", () => one.behind.open && fillTable(card));
  }
  box.append(make("div", { class: "foot" }, one.behind, csv));
  boxes.set(card, one);
  return box;
}

function fillTable(card) {
  const { behind, found } = boxes.get(card);
  behind.querySelector(".scroll")?.remove();
  behind.append(tableOf(card, found));
  // It lies over the chart: a card that grew would tear a hole beside itself.
  const { box, body } = boxes.get(card);
  behind.style.setProperty("--top", `${body.getBoundingClientRect().top - box.getBoundingClientRect().top}px`);
}

async function draw(card) {
  const one = boxes.get(card);
  const found = (one.found = result(card, state));
  const passing = page.choices.filter(
    (name) => !card.filters.includes(name) && (name === "period" ? hasPeriod() : state[name].length),
  );
  one.unfiltered.hidden = passing.length === 0;
  one.unfiltered.textContent = `Not filtered by ${passing.map((name) => (name === "period" ? "period" : LISTS[name][0].toLowerCase())).join(" and ")}`;
  drawn.get(card)?.finalize();
  drawn.delete(card);
  if (card.chart === "headline") one.body.replaceChildren(...headline(card, found));
  else if (card.chart === "table")
    one.body.replaceChildren(
      found.rows.length ? tableOf(card, found) : make("p", { class: "empty" }, card.none || NONE),
      ...notesOf([leftOut(card, found)]),
    );
  else {
    if (one.behind.open) fillTable(card);
    await chart(card, found, one.box, one.body);
  }
}

let turn = 0;
async function drawAll() {
  const mine = ++turn;
  document.documentElement.dataset.state = "drawing";
  for (const card of page.cards) {
    await draw(card);
    if (mine !== turn) return;
  }
  document.documentElement.dataset.state = "ready";
  document.documentElement.dataset.drawn = String(mine);
}

// ---- Filters: in the address, so that a view can be sent to somebody ----

const LISTS = {
  department: ["Department", "All departments"],
  visit_type: ["Type of visit", "All types"],
  dataset: ["Dataset", "All datasets"],
};
const state = { from: "", to: "", department: [], visit_type: [], dataset: [] };
const has = (name) => page.choices.includes(name);
const isDay = (text) => /^\d{4}-\d\d-\d\d$/.test(text || "") && !Number.isNaN(utc(text));
const dayBefore = (day, days) => iso(utc(day) - days * DAY);

function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  state.to = isDay(words.get("to")) ? words.get("to") : page.state.newest;
  state.from = isDay(words.get("from")) ? words.get("from") : dayBefore(state.to, page.days - 1);
  for (const name of Object.keys(LISTS)) state[name] = words.getAll(name);
}

const hasPeriod = () => state.to !== page.state.newest || state.from !== dayBefore(state.to, page.days - 1);

function address() {
  const words = new URLSearchParams();
  if (state.to !== page.state.newest) words.set("to", state.to);
  if (state.from !== dayBefore(state.to, page.days - 1)) words.set("from", state.from);
  for (const name of Object.keys(LISTS)) for (const value of state[name]) words.append(name, value);
  return words.toString();
}

function changed() {
  history.replaceState(null, "", address() ? `#${address()}` : location.pathname + location.search);
  reflect();
  return drawAll();
}

function values(name) {
  const found = new Set();
  for (const card of page.cards) {
    const table = page.tables[card.table];
    if (!card.filters.includes(name) || table.columns) continue;
    if (table.by) table.by[name].values.forEach((value) => value !== null && found.add(value));
  }
  return [...found].sort(byText);
}

// All days that a page has figures of, the oldest first. A date that failed has a run time, and no data.
function daysHeld() {
  const days = new Set();
  for (const card of page.cards) {
    const table = page.tables[card.table];
    if (!table.by?.day || card.report === "dates" || !card.filters.includes("period")) continue;
    const { codes, values: all } = table.by.day;
    const columns = card.figures.flatMap(({ column, per }) => [column, per]).filter(Boolean);
    codes.forEach((code, row) => columns.some((name) => table.sums[name][row]) && days.add(all[code]));
  }
  return [...days].filter((day) => day !== null).sort();
}

function quickOnes() {
  const newest = page.state.newest;
  return [
    ["30 days", dayBefore(newest, 29)],
    ["90 days", dayBefore(newest, 89)],
    [`${page.days} days`, dayBefore(newest, page.days - 1)],
    ["All", daysHeld()[0] || newest],
  ];
}

function buildFilters() {
  const form = at("filters");
  form.hidden = false;
  const show = at("show-filters"); // seen where the page is as narrow as a phone
  show.hidden = false;
  show.addEventListener("click", () => show.setAttribute("aria-expanded", String(form.classList.toggle("open"))));
  form.addEventListener("submit", (event) => event.preventDefault());
  if (has("period")) {
    const input = (name, label) =>
      make(
        "label",
        { class: "field" },
        label,
        make("input", {
          type: "date",
          id: `filter-${name}`,
          onchange: (event) => {
            if (isDay(event.target.value)) state[name] = event.target.value;
            else if (name === "to") state.to = page.state.newest;
            else state.from = dayBefore(state.to, page.days - 1);
            changed();
          },
        }),
      );
    form.append(make("div", { class: "dates" }, input("from", "From"), input("to", "To")));
    form.append(
      make(
        "div",
        { class: "field" },
        "Up to the newest date",
        make(
          "div",
          { class: "quick", role: "group", "aria-label": "Period up to the newest date" },
          ...quickOnes().map(([label, from]) =>
            make(
              "button",
              {
                type: "button",
                "data-from": from,
                onclick: () => {
                  Object.assign(state, { from, to: page.state.newest });
                  changed();
                },
              },
              label,
            ),
          ),
        ),
      ),
    );
  }
  for (const name of Object.keys(LISTS).filter(has)) {
    const boxes_of = values(name).map((value) =>
      make(
        "label",
        {},
        make("input", {
          type: "checkbox",
          name,
          value,
          onchange: () => {
            state[name] = [...form.querySelectorAll(`input[name="${name}"]:checked`)].map((box) => box.value);
            changed();
          },
        }),
        value,
      ),
    );
    const pick = make(
      "details",
      { class: "pick" },
      make("summary", { id: `filter-${name}` }),
      make("fieldset", { "aria-label": LISTS[name][0] }, ...boxes_of),
    );
    form.append(make("div", { class: "field" }, LISTS[name][0], pick));
  }
  document.addEventListener("click", (event) => {
    for (const pick of form.querySelectorAll("details.pick[open]")) if (!pick.contains(event.target)) pick.open = false;
  });
  form.addEventListener("keydown", (event) => {
    const pick = event.target.closest("details.pick[open]");
    if (event.key === "Escape" && pick) {
      pick.open = false;
      pick.querySelector("summary").focus();
    }
  });
  form.append(
    make(
      "button",
      {
        type: "button",
        id: "reset",
        onclick: () => {
          Object.assign(state, {
            to: page.state.newest,
            from: dayBefore(page.state.newest, page.days - 1),
            department: [],
            visit_type: [],
            dataset: [],
          });
          changed();
        },
      },
      "Reset",
    ),
  );
}

function reflect() {
  for (const name of ["from", "to"]) if (at(`filter-${name}`)) at(`filter-${name}`).value = state[name];
  for (const button of document.querySelectorAll(".quick button"))
    button.setAttribute("aria-pressed", String(state.to === page.state.newest && state.from === button.dataset.from));
  const chosen_of = [];
  if (has("period")) chosen_of.push(`${dayText(state.from)} to ${dayText(state.to)}`);
  for (const name of Object.keys(LISTS).filter(has)) {
    at(`filter-${name}`).textContent = state[name].length ? state[name].join(", ") : LISTS[name][1];
    chosen_of.push(state[name].length ? state[name].join(", ") : LISTS[name][1].toLowerCase());
    for (const box of document.querySelectorAll(`input[name="${name}"]`)) box.checked = state[name].includes(box.value);
  }
  const wrong = has("period") && state.from > state.to;
  at("chosen").classList.toggle("wrong", wrong);
  at("chosen").textContent = wrong
    ? "The period ends before it begins: choose an earlier first day or a later last one."
    : chosen_of.join(" · ");
  at("reset").hidden = !address();
  for (const link of at("nav").querySelectorAll("a")) link.hash = address();
}

// ---- What stands on every page ----

// How far the revenue can be relied on, and which rows the figures lack. A bill whose amount cannot be relied on is in no
// share: a rejected reversal, say, without which the revenue is too high, though all that could be read is in it.
function completeness(item) {
  const { complete, unreliable, withheld } = page.state;
  const bills = Number(unreliable);
  const items = [];
  if (complete !== null || bills) {
    const share = complete === null ? "none" : shown(Number(complete), "percent");
    const parts = ["Revenue: ", make("b", {}, share), complete === null ? "" : " of what could be read"];
    if (bills)
      parts.push(
        "; ",
        make("b", {}, plural(bills, "bill")),
        ` whose amount cannot be relied on ${bills === 1 ? "is" : "are"} not in it`,
      );
    items.push(item(Number(complete) >= 98 && !bills ? "good" : "warn", ...parts));
  }
  const rows = ["patient", "visit", "admission", "bill"].map((word, place) => [withheld[place] || 0, word]);
  const lacking = rows.filter(([count]) => count).map(([count, word]) => plural(count, word));
  if (lacking.length) items.push(item("", `Withheld from these figures: ${lacking.join(", ")}`));
  return items;
}

function about() {
  const { newest, built, rejected, due } = page.state;
  const item = (kind, ...parts) => make("li", { class: kind }, ...parts);
  const items = [item("", "Data up to ", make("b", {}, dayText(newest)))];
  const later = page.index ? [] : daysHeld().filter((day) => day > newest);
  if (later.length)
    items.push(
      item(
        "warn",
        `${plural(later.length, "day")} with data after that, the last ${dayText(later[later.length - 1])}: shown if you choose "To"`,
      ),
    );
  items.push(...completeness(item));
  const [bad, all] = rejected;
  if (all) items.push(item("", make("b", {}, grouped(bad, 0)), ` of ${grouped(all, 0)} rows rejected that day`));
  const late = due.filter(([, next]) => next !== null && Date.now() > Date.parse(`${next}Z`)).map(([name]) => name);
  if (late.length)
    items.push(
      item("warn", late.length === due.length ? "Newer files are due" : `Newer files are due: ${late.join(", ")}`),
    );
  items.push(item("", `Built ${dayText(built.slice(0, 10))}, ${built.slice(11, 16)} UTC`));
  at("state").append(...items);
}

// Paper has a width of its own: charts are drawn anew for it, in the light theme, and on the screen's afterwards.
function printing() {
  at("print").addEventListener("click", () => window.print());
}

function theme() {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let own = null;
  try {
    own = localStorage.getItem("theme");
  } catch {} // a page opened as a file may have no storage
  const set = () => {
    const name = own || (dark.matches ? "dark" : "light");
    document.documentElement.dataset.theme = name;
    at("theme").textContent = name === "dark" ? "Light" : "Dark";
    at("theme").setAttribute("aria-label", `Show the page ${name === "dark" ? "light" : "dark"}`);
  };
  at("theme").addEventListener("click", () => {
    own = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("theme", own);
    } catch {}
    set();
  });
  dark.addEventListener("change", set);
  set();
}

function navigation() {
  for (const { name, slug } of page.dashboards)
    at("nav").append(
      make("a", { href: `${slug}.html`, "aria-current": slug === page.slug ? "page" : undefined }, name),
    );
  at("nav").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
}

function footer() {
  at("footer").append(
    make(
      "p",
      {},
      "Days are UTC. Figures stand on accepted rows; what was rejected is on the page Data Quality. The page holds sums and no patients.",
    ),
  );
}

function index() {
  at("about").textContent = `The figures of the ${page.days} days up to the newest date.`;
  readAddress();
  const boards = page.index.map(({ about: text, cards, tables }, place) => {
    const { name, slug } = page.dashboards[place];
    const list = make(
      "dl",
      {},
      ...cards.map((card) => {
        const { rows, days } = result(card, state, tables);
        const format = card.figures[0].format;
        const now = rows[rows.length - 1][card.compared ? 1 : 0];
        const more = card.compared
          ? make("div", { class: "change" }, ...changeOf(card, rows[0][1].number, now.number, days))
          : null;
        return make("div", {}, make("dt", {}, card.title), make("dd", {}, valueOf(now, format), more));
      }),
    );
    return make("a", { class: "board", href: `${slug}.html` }, make("h2", {}, name), make("p", {}, text), list);
  });
  at("cards").append(make("div", { class: "boards" }, ...boards));
  document.documentElement.dataset.state = "ready";
}

function dashboard() {
  at("about").textContent = page.about;
  readAddress();
  buildFilters();
  at("cards").append(...page.cards.map(frame));
  reflect();
  window.addEventListener("hashchange", () => {
    readAddress();
    reflect();
    drawAll();
  });
  let width = at("cards").clientWidth;
  let later = 0;
  new ResizeObserver(() => {
    if (at("cards").clientWidth === width || window.matchMedia("print").matches) return;
    width = at("cards").clientWidth;
    clearTimeout(later);
    later = setTimeout(drawAll, 120);
  }).observe(at("cards"));
  return drawAll();
}

theme();
printing();
navigation();
footer();
if (page.state.newest === null) {
  at("cards").append(
    make(
      "p",
      { class: "empty", style: "grid-column: 1 / -1; padding: 24px" },
      'The warehouse holds no date yet: run one with "make run DATE=2026-01-31", then "make dashboards".',
    ),
  );
  at("about").textContent = page.about || "";
  for (const card of page.cards || []) {
    // Dates that were refused are all there is to see.
    if (card.report !== "unfinished" || !card.columns.length || !page.tables[card.table].rows.length) continue;
    at("cards").append(frame(card));
    boxes.get(card).body.append(tableOf(card, result(card, state)));
  }
  document.documentElement.dataset.state = "ready";
  return;
}
about();
Promise.resolve(page.index ? index() : dashboard()).catch(fail);
