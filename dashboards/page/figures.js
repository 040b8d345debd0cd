// The cards' figures: made of the sums that the page holds as the cards' SQL makes them of the reports.

const page = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const DAY = 86400000;

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name === "style") element.style.cssText = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

function fail(error) {
  const reason = error && error.message ? error.message : String(error);
  at("fault").textContent = `Some of this page could not be drawn (${reason}): build it again with "make dashboards".`;
  at("fault").hidden = false;
  document.documentElement.dataset.state = "failed";
}
window.addEventListener("error", (event) => fail(event.error || event.message));
window.addEventListener("unhandledrejection", (event) => fail(event.reason));

// ---- Words and numbers for people ----

const THIN = "\u202f";
const decimals = [0, 1, 2].map(
  (digits) => new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }),
);
const upTo2 = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const grouped = (value, digits) =>
  (digits === undefined ? upTo2 : decimals[digits]).format(value).replaceAll(",", THIN).replace("-", "−");
const FORMATS = {
  integer: (value) => grouped(value, 0),
  number: (value) => grouped(value),
  money: (value) => `${grouped(value, 2)}${THIN}${page.currency}`,
  percent: (value) => `${grouped(value, 1)}${THIN}%`,
  hours: (value) => `${grouped(value, 1)}${THIN}h`,
  days: (value) => `${grouped(value, 1)}${THIN}d`,
};
const shown = (value, format) => (value === null ? "–" : FORMATS[format](value));
const big = (value, format) =>
  value !== null && format === "money" && Math.abs(value) >= 1000
    ? `${grouped(value, 0)}${THIN}${page.currency}`
    : shown(value, format);
// A number in a table or a cell, whose head has the currency.
const bare = (value, format) => (value !== null && format === "money" ? grouped(value, 2) : shown(value, format));
const withUnit = (label, format) => (format === "money" ? `${label} (${page.currency})` : label);

const utc = (text) => Date.parse(`${text}T00:00:00Z`);
const iso = (time) => new Date(time).toISOString().slice(0, 10);
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const shortMonth = (text) => MONTHS[Number(text.slice(5, 7)) - 1];
const shortDay = (text) => `${Number(text.slice(8, 10))} ${shortMonth(text)}`;
const quarterOf = (text) => `Q${Math.ceil(Number(text.slice(5, 7)) / 3)}`;
const dayText = (text) => `${shortDay(text)} ${text.slice(0, 4)}`;
const monthText = (text) => `${shortMonth(text)} ${text.slice(0, 4)}`;
const named = (column) => (column[0].toUpperCase() + column.slice(1)).replaceAll("_", " ");
const plural = (count, word) => `${grouped(count, 0)} ${word}${count === 1 ? "" : "s"}`;
const NAMES = { visit_type: "Type of visit", partition_date: "Date", since: "Since", start_hour: "Hour (UTC)", day_of_week: "Weekday" };
const heading = (column) => NAMES[column] || named(column);
const TIME_TEXTS = {
  week: (day) => `week of ${dayText(day)}`,
  month: monthText,
  quarter: (day) => `${quarterOf(day)} ${day.slice(0, 4)}`,
  year: (day) => day.slice(0, 4),
  decade: (day) => `${day.slice(0, 3)}0s`,
};
function valueText(column, value) {
  if (value === null) return "(none)";
  if (column in TIME_TEXTS) return TIME_TEXTS[column](value);
  if (column === "day_of_week") return value.slice(2); // it begins with its number, which it is ordered by
  if (column === "age") return value.replace(/^\d\. /, "");
  if (/^\d{4}-\d\d-\d\d$/.test(value)) return dayText(value);
  return String(value);
}

// ---- The engine: what a card's SQL gives ----

const TIMES = Object.keys(page.grains); // the finest first
const MONTHS_OF = { month: 1, quarter: 3, year: 12, decade: 120 };
const monthsOf = (day) => Number(day.slice(0, 4)) * 12 + Number(day.slice(5, 7)) - 1; // since there was no year 0
const ofMonths = (count) =>
  `${String(Math.floor(count / 12)).padStart(4, "0")}-${String((count % 12) + 1).padStart(2, "0")}-01`;

// The first day of the step of that grain that a day lies in; the first decade begins with the year 1.
function startOf(grain, day) {
  if (day === null || grain === "day") return day;
  if (grain === "week") return iso(utc(day) - ((new Date(utc(day)).getUTCDay() + 6) % 7) * DAY);
  const start = ofMonths(monthsOf(day) - (monthsOf(day) % MONTHS_OF[grain]));
  return start < "0001" ? "0001-01-01" : start;
}

// The first day of the step after the one that begins on this day.
function after(grain, start) {
  if (!(grain in MONTHS_OF)) return iso(utc(start) + page.grains[grain] * DAY);
  return ofMonths(monthsOf(start) - (monthsOf(start) % MONTHS_OF[grain]) + MONTHS_OF[grain]);
}

// The grain of a chart: its own, or the finest of which these rows have not too many steps, as the card's SQL has it.
function grainOf(card, table, rows) {
  const days = table.by.day.values;
  const of = (name) =>
    new Set(rows.map((row) => table.by[name].codes[row]).filter((code) => table.by[name].values[code] !== null));
  const found = [...of("day")].map((code) => days[code]).sort(byText);
  if (!found.length) return { grain: card.grain };
  const [first, last] = [found[0], found[found.length - 1]];
  const span = (utc(last) - utc(first)) / DAY;
  const series = card.by
    .filter((name) => !TIMES.includes(name))
    .reduce((count, name) => count * of(name).size, card.fold ? card.figures.length : 1);
  const fits = (grain) => span < page.grains[grain] * card.steps && span * series < page.grains[grain] * page.rows;
  const finer = [card.grain, ...card.coarser.slice(0, -1)];
  const grain = finer.find(fits) || card.coarser[card.coarser.length - 1];
  return { grain, first, last, most: Math.min(card.steps, Math.floor(page.rows / series)) };
}
const COLUMN = { period: "day" };

// Every row of a table that this card may use under these filters, in a period of its own where it is given one.
function chosen(table, card, filters, period) {
  const tests = [];
  for (const filter of card.filters) {
    const column = table.by[COLUMN[filter] || filter];
    let fits;
    if (filter === "period") fits = column.values.map((day) => day !== null && day >= period.from && day <= period.to);
    else if (filters[filter].length)
      fits = column.values.map((value) => value !== null && filters[filter].includes(value));
    else continue;
    tests.push([column.codes, fits]);
  }
  if (card.only) {
    const { codes, values } = table.by[card.only];
    tests.push([codes, values.map((value) => value !== null)]);
  }
  const rows = [];
  for (let row = 0; row < table.rows; row++) if (tests.every(([codes, fits]) => fits[codes[row]])) rows.push(row);
  return rows;
}

// A decimal as SQL would print it, and as a number to draw.
function decimal(whole, places) {
  const digits = (whole < 0n ? -whole : whole).toString().padStart(places + 1, "0");
  const cut = digits.length - places;
  const text = (whole < 0n ? "-" : "") + digits.slice(0, cut) + (places ? `.${digits.slice(cut)}` : "");
  return { text, number: Number(text) };
}

// times * sum(column) / sum(per) / divided, to four places, half away from zero; in whole numbers, so without error.
function figureOf(figure, table, rows) {
  const sum = (name) => {
    let total = 0;
    for (const row of rows) total += table.sums[name][row];
    return BigInt(total);
  };
  if (figure.per === null) return decimal(sum(figure.column), table.places[figure.column]);
  let under = sum(figure.per) * BigInt(figure.divided) * 10n ** BigInt(table.places[figure.column]);
  if (under === 0n || !rows.length) return { text: null, number: null };
  let over = BigInt(figure.times) * sum(figure.column) * 10n ** BigInt(4 + table.places[figure.per]);
  if (under < 0n) [over, under] = [-over, -under];
  const half = over < 0n ? -1n : 1n;
  return decimal((2n * over + half * under) / (2n * under), 4);
}

const byText = (one, other) => (one === other ? 0 : one === null ? 1 : other === null ? -1 : one < other ? -1 : 1);
const isCell = (value) => value !== null && typeof value === "object";
const byValue = (one, other) => (isCell(one) ? byText(one.number, other.number) : byText(one, other));

// In SQL nulls stand last going up, and first going down unless it says otherwise.
function inOrder(card, rows) {
  const keys = card.order ? [card.order.split(" ")] : [];
  if (!card.order && card.figures.length && !card.by.some((name) => TIMES.includes(name)) && !card.fold)
    keys.push([card.figures[0].name, "desc", "last"]);
  const first = keys.map(([name]) => name);
  for (const name of [...card.by, ...(card.fold || []).slice(0, 1)]) if (!first.includes(name)) keys.push([name]);
  const places = keys.map(([name, direction, nulls]) => [
    card.result.indexOf(name),
    direction === "desc",
    nulls === "last",
  ]);
  const isNull = (value) => value === null || (isCell(value) && value.number === null);
  return rows.sort((one, other) => {
    for (const [place, down, last] of places) {
      const nulls = isNull(one[place]) - isNull(other[place]);
      const order = nulls
        ? last
          ? nulls
          : down
            ? -nulls
            : nulls
        : byValue(one[place], other[place]) * (down ? -1 : 1);
      if (order) return order;
    }
    return 0;
  });
}

// The card's result: rows of texts and of cells {text, number}; for a comparison two, the older period first.
function result(card, filters, tables = page.tables) {
  const table = tables[card.table];
  if (card.columns.length) {
    const own = card.filters.filter((name) => name === "period" || filters[name].length);
    const fits = own.map((name) => {
      const place = table.columns.indexOf(COLUMN[name] || name);
      return (row) =>
        name === "period" ? row[place] >= filters.from && row[place] <= filters.to : filters[name].includes(row[place]);
    });
    const rows = table.rows.filter((row) => fits.every((fit) => fit(row)));
    return { rows: card.limit ? rows.slice(0, card.limit) : rows, found: rows.length };
  }
  const period = { from: filters.from, to: filters.to };
  const now = chosen(table, card, filters, period);
  if (card.compared) {
    const days = (utc(period.to) - utc(period.from)) / DAY + 1;
    const before = { from: iso(utc(period.from) - days * DAY), to: iso(utc(period.from) - DAY) };
    const rows = [
      [before, chosen(table, card, filters, before)],
      [period, now],
    ];
    // Of a period in which the data begin less was recorded, not less done.
    const isKnown = card.begins !== null && before.from >= card.begins;
    const figures = rows.map(([of, found]) => [of.from, figureOf(card.figures[0], table, found)]);
    if (!isKnown) figures[0][1] = { text: null, number: null };
    return { rows: figures, found: now.length, days, isKnown };
  }
  const groups = new Map();
  const time = card.grain ? grainOf(card, table, now) : null;
  const by = card.by.map((name) => (time && name === card.grain ? time.grain : name));
  const columns = by.map((name) => {
    const isTime = TIMES.includes(name);
    const { codes, values } = table.by[isTime ? "day" : name];
    return { codes, values: isTime ? values.map((day) => startOf(name, day)) : values };
  });
  if (!card.by.length) groups.set("", { values: [], rows: now });
  for (const row of card.by.length ? now : []) {
    const values = columns.map((column) => column.values[column.codes[row]]);
    const key = JSON.stringify(values);
    if (!groups.has(key)) groups.set(key, { values, rows: [] });
    groups.get(key).rows.push(row);
  }
  let rows = [];
  for (const group of groups.values()) {
    const figures = card.figures.map((figure) => figureOf(figure, table, group.rows));
    if (card.fold) card.figures.forEach((figure, place) => rows.push([...group.values, figure.label, figures[place]]));
    else rows.push([...group.values, ...figures]);
  }
  rows = inOrder(card, rows);
  const most = card.limit || rows.length;
  const left = { rows: rows.slice(most), of: rows.length + table.left.groups };
  return { rows: rows.slice(0, most), found: now.length, by, time, left };
}
