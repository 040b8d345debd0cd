"use strict";
// The cards' figures, made of the sums that the page holds as the cards' SQL makes them of the reports, and drawn.
(() => {
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
    element.append(...children.filter((child) => child !== null && child !== undefined));
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
  const decimals = [0, 1, 2].map((digits) => new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  const upTo2 = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
  const grouped = (value, digits) => (digits === undefined ? upTo2 : decimals[digits]).format(value).replaceAll(",", THIN).replace("-", "−");
  const FORMATS = {
    integer: (value) => grouped(value, 0),
    number: (value) => grouped(value),
    money: (value) => grouped(value, 2),
    percent: (value) => `${grouped(value, 1)}${THIN}%`,
    hours: (value) => `${grouped(value, 1)}${THIN}h`,
    days: (value) => `${grouped(value, 1)}${THIN}d`,
  };
  const shown = (value, format) => (value === null ? "–" : FORMATS[format](value));
  const big = (value, format) => (value !== null && format === "money" && Math.abs(value) >= 1000 ? grouped(value, 0) : shown(value, format));

  const utc = (text) => Date.parse(`${text}T00:00:00Z`);
  const iso = (time) => new Date(time).toISOString().slice(0, 10);
  const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  const shortMonth = (text) => MONTHS[Number(text.slice(5, 7)) - 1];
  const shortDay = (text) => `${Number(text.slice(8, 10))} ${shortMonth(text)}`;
  const dayText = (text) => `${shortDay(text)} ${text.slice(0, 4)}`;
  const monthText = (text) => `${shortMonth(text)} ${text.slice(0, 4)}`;
  const named = (column) => (column[0].toUpperCase() + column.slice(1)).replaceAll("_", " ");
  const plural = (count, word) => `${grouped(count, 0)} ${word}${count === 1 ? "" : "s"}`;
  const NAMES = { visit_type: "Type of visit", partition_date: "Date", since: "Since" };
  const heading = (column) => NAMES[column] || named(column);
  function valueText(column, value) {
    if (value === null) return "(none)";
    if (column === "month") return monthText(value);
    if (column === "week") return `week of ${dayText(value)}`;
    if (/^\d{4}-\d\d-\d\d$/.test(value)) return dayText(value);
    return String(value);
  }

  // ---- The engine: what a card's SQL gives ----

  const GRAINS = { week: weekOf, month: (day) => `${day.slice(0, 7)}-01` };
  const TIMES = ["day", "week", "month"];
  function weekOf(day) {
    const time = utc(day);
    return iso(time - ((new Date(time).getUTCDay() + 6) % 7) * DAY);
  }
  const COLUMN = { period: "day" };

  // Every row of a table that this card may use under these filters, in a period of its own where it is given one.
  function chosen(table, card, filters, period) {
    const tests = [];
    for (const filter of card.filters) {
      const column = table.by[COLUMN[filter] || filter];
      let fits;
      if (filter === "period") fits = column.values.map((day) => day !== null && day >= period.from && day <= period.to);
      else if (filters[filter].length) fits = column.values.map((value) => value !== null && filters[filter].includes(value));
      else continue;
      tests.push([column.codes, fits]);
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
    if (!card.order && card.figures.length && !card.by.some((name) => TIMES.includes(name)) && !card.fold) keys.push([card.figures[0].name, "desc", "last"]);
    const first = keys.map(([name]) => name);
    for (const name of [...card.by, ...(card.fold || []).slice(0, 1)]) if (!first.includes(name)) keys.push([name]);
    const places = keys.map(([name, direction, nulls]) => [card.result.indexOf(name), direction === "desc", nulls === "last"]);
    const isNull = (value) => value === null || (isCell(value) && value.number === null);
    return rows.sort((one, other) => {
      for (const [place, down, last] of places) {
        const nulls = isNull(one[place]) - isNull(other[place]);
        const order = nulls ? (last ? nulls : down ? -nulls : nulls) : byValue(one[place], other[place]) * (down ? -1 : 1);
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
        return (row) => (name === "period" ? row[place] >= filters.from && row[place] <= filters.to : filters[name].includes(row[place]));
      });
      const rows = table.rows.filter((row) => fits.every((fit) => fit(row)));
      return { rows: card.limit ? rows.slice(0, card.limit) : rows, found: rows.length };
    }
    const period = { from: filters.from, to: filters.to };
    const now = chosen(table, card, filters, period);
    if (card.compared) {
      const days = (utc(period.to) - utc(period.from)) / DAY + 1;
      const before = { from: iso(utc(period.from) - days * DAY), to: iso(utc(period.from) - DAY) };
      const rows = [[before, chosen(table, card, filters, before)], [period, now]];
      const days_of = table.by.day.values;
      const partly = days_of.length > 0 && days_of[0] > before.from;
      return { rows: rows.map(([of, found]) => [of.from, figureOf(card.figures[0], table, found)]), found: now.length, days, before, partly, first: days_of[0] };
    }
    const groups = new Map();
    const columns = card.by.map((name) => {
      const column = table.by[name in GRAINS ? "day" : name];
      return { codes: column.codes, values: column.values.map((value) => (name in GRAINS && value !== null ? GRAINS[name](value) : value)) };
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
    return { rows: card.limit ? rows.slice(0, card.limit) : rows, found: now.length };
  }

  // ---- Charts ----

  const CONFIG = {
    background: null,
    font: getComputedStyle(document.body).fontFamily,
    view: { stroke: null },
    axis: {
      labelColor: "var(--soft)", labelFontSize: 12, labelPadding: 7, title: null, ticks: false, domain: false,
      gridColor: "var(--rule)", labelLimit: 190,
    },
    text: { color: "var(--soft)", fontSize: 12 },
    aria: false,
  };
  const color = (place) => `var(--c${place % 8})`;
  const UNIT = { percent: "%", hours: "h", days: "d" };

  function axis(format, greatest) {
    const number = greatest >= 1000 ? "replace(format(datum.value, '~s'), 'G', 'B')" : "format(datum.value, '~f')";
    const unit = UNIT[format];
    return { labelExpr: unit ? `${number} + '${THIN}${unit}'` : number, tickCount: 5 };
  }

  // Every step from the first to the last, so that a day without a visit is drawn as one.
  function steps(grain, keys) {
    const all = [];
    const last = keys[keys.length - 1];
    for (let key = keys[0]; key <= last && all.length < 4000; ) {
      all.push(key);
      const time = new Date(utc(key));
      key = grain === "month" ? iso(Date.UTC(time.getUTCFullYear(), time.getUTCMonth() + 1, 1)) : iso(+time + (grain === "week" ? 7 : 1) * DAY);
    }
    return all;
  }

  // What is drawn: points of an axis value, a series and a number.
  function plotted(card, rows) {
    const [axisColumn] = card.by.length ? card.by : card.fold;
    const points = [];
    for (const row of rows) {
      if (card.result.length === 2) points.push({ x: row[0], s: null, v: row[1].number });
      else if (isCell(row[1])) card.figures.forEach((figure, place) => points.push({ x: row[0], s: figure.label, v: row[1 + place].number }));
      else points.push({ x: row[0], s: row[1] === null ? "(none)" : row[1], v: row[2].number });
    }
    const xs = [...new Set(points.map((point) => point.x))];
    const found = new Set(points.map((point) => point.s));
    const labels = card.figures.map((figure) => figure.label);
    const series = labels.every((label) => found.has(label)) && card.fold ? labels : [...found].sort(byText);
    return { axis: axisColumn, points, xs, series };
  }

  function legendOf(entries, chart) {
    return make("ul", { class: `legend ${chart}` }, ...entries.map(([kind, style, ...text]) => make("li", {}, make("i", { class: kind, style }), ...text)));
  }
  const swatches = (series) => series.map((name, place) => ["", `background:${color(place)}`, name]);

  const CHARTS = { line: overTime, area: overTime, bar, row: across, heat, pie };

  function tips(card, data, xs) {
    const found = new Map(xs.map((x) => [x, { x, t: TIMES.includes(data.axis) ? utc(x) : 0, label: valueText(data.axis, x) }]));
    for (const point of data.points) {
      const place = data.series.indexOf(point.s);
      if (found.has(point.x)) found.get(point.x)[`s${place}`] = shown(point.v, card.figures[0].format);
    }
    const fields = [{ field: "label", title: heading(data.axis) }];
    data.series.forEach((name, place) => fields.push({ field: `s${place}`, title: name === null ? card.figures[0].label : name }));
    return { values: [...found.values()].map((tip) => ({ ...Object.fromEntries(data.series.map((_, place) => [`s${place}`, "–"])), ...tip })), fields };
  }

  function overTime(card, data, width) {
    const summed = card.figures.every((figure) => figure.per === null);
    const all = steps(data.axis, data.xs);
    const values = data.series.flatMap((name, place) => {
      const of = new Map(data.points.filter((point) => point.s === name).map((point) => [point.x, point.v]));
      return all.map((x) => ({ x, t: utc(x), s: place, v: of.has(x) ? of.get(x) : summed ? 0 : null }));
    });
    const greatest = Math.max(...values.map((value) => value.v || 0), card.goal || 0);
    const smoothed = card.chart === "area" && data.axis === "day" && all.length >= 60 && data.series.length === 1;
    const x = {
      field: "t", type: "temporal", scale: { type: "utc", padding: 2 },
      axis: { grid: false, tickCount: Math.max(3, Math.floor(width / 110)), format: utc(all[all.length - 1]) - utc(all[0]) > 120 * DAY || data.axis === "month" ? "%b %Y" : "%-d %b", labelOverlap: true, labelFlush: 12, labelPadding: 10 },
    };
    const y = { field: "v", type: "quantitative", axis: axis(card.figures[0].format, greatest), scale: { zero: card.chart === "area", nice: true } };
    const paint = { field: "s", type: "nominal", scale: { domain: data.series.map((_, place) => place), range: data.series.map((_, place) => color(place)) }, legend: null };
    const few = all.length <= 40;
    const layer = [];
    if (card.chart === "area") {
      layer.push({ mark: { type: "area", opacity: smoothed ? 0.22 : 0.25, line: smoothed ? false : { strokeWidth: 1.8 } }, encoding: { x, y: { ...y, stack: card.stacked ? "zero" : null }, color: paint } });
      if (smoothed) {
        layer.push({
          transform: [{ window: [{ op: "mean", field: "v", as: "mean" }], sort: [{ field: "t" }], frame: [-3, 3] }],
          mark: { type: "line", strokeWidth: 2, interpolate: "monotone" }, encoding: { x, y: { ...y, field: "mean" }, color: paint },
        });
      }
    } else {
      layer.push({ mark: { type: "line", strokeWidth: 2.2, point: few ? { size: 34, filled: true } : false, strokeJoin: "round" }, encoding: { x, y, color: paint } });
    }
    if (card.goal !== null) layer.push(rule({ y: { datum: card.goal, type: "quantitative" } }));
    const tip = tips(card, data, data.xs);
    layer.push({
      data: { values: tip.values },
      params: [{ name: "over", select: { type: "point", on: "pointerover", clear: "pointerout" } }],
      mark: { type: "rule", strokeWidth: Math.max(2, Math.min(40, width / Math.max(1, all.length))), color: "var(--soft)" },
      encoding: { x, opacity: { condition: { param: "over", empty: false, value: 0.22 }, value: 0 }, tooltip: tip.fields },
    });
    const entries = data.series[0] === null ? [] : swatches(data.series);
    if (smoothed) entries.push(["", `background:${color(0)};opacity:.35`, "each day"], ["thin", `background:${color(0)}`, "mean of 7 days"]);
    return { draw: (height) => ({ data: { values }, layer, width, height }), entries };
  }

  const rule = (encoding) => ({ mark: { type: "rule", strokeDash: [5, 4], strokeWidth: 1.5, color: "var(--ink)" }, encoding });

  // Labels of a time axis that say the year once.
  function shortLabels(axisColumn, xs, room) {
    const every = Math.ceil((axisColumn === "month" ? 34 : 46) / room);
    return Object.fromEntries(xs.map((x, place) => {
      if (x === null) return ["null", "(none)"];
      if (!TIMES.includes(axisColumn)) return [x, inLines(x, Math.max(4, Math.floor(room / 7.4)))];
      if (place % every) return [x, ""];
      if (axisColumn !== "month") return [x, shortDay(x)];
      const isNewYear = place === 0 || x.slice(0, 4) !== xs[place - every].slice(0, 4);
      return [x, isNewYear ? [shortMonth(x), x.slice(0, 4)] : shortMonth(x)];
    }));
  }

  // A text in lines of so many characters, as far as its words allow.
  function inLines(text, characters) {
    const lines = [];
    for (const word of String(text).split(" ")) {
      const last = lines.length - 1;
      if (last >= 0 && lines[last].length + word.length < characters) lines[last] += ` ${word}`;
      else lines.push(word);
    }
    return lines;
  }

  function bar(card, data, width) {
    const isTime = TIMES.includes(data.axis);
    const xs = isTime ? steps(data.axis, data.xs) : data.xs;
    const greatest = card.stacked
      ? Math.max(...xs.map((x) => data.points.reduce((sum, point) => sum + (point.x === x ? point.v || 0 : 0), 0)))
      : Math.max(...data.points.map((point) => point.v || 0), card.goal || 0);
    const room = (width - 50) / xs.length;
    const labels = shortLabels(data.axis, xs, room);
    const x = {
      field: "x", type: "ordinal", scale: { domain: xs, paddingInner: room < 14 ? 0.1 : 0.32, paddingOuter: 0.16 },
      axis: { grid: false, labelAngle: 0, labelExpr: `(${JSON.stringify(labels)})[datum.value]`, labelOverlap: false, labelLineHeight: 15 },
    };
    const tip = tips(card, data, xs);
    const of = new Map(tip.values.map((value) => [value.x, value]));
    const values = data.points.map((point) => ({ ...of.get(point.x), ...point, s: data.series.indexOf(point.s) }));
    const paint = { field: "s", type: "ordinal", scale: { domain: data.series.map((_, place) => place), range: data.series.map((_, place) => color(place)) }, legend: null };
    const layer = [{
      mark: { type: "bar", cornerRadiusEnd: card.stacked ? 0 : 3, stroke: card.stacked && room > 20 ? "var(--card)" : null, strokeWidth: 1 },
      encoding: {
        x, y: { field: "v", type: "quantitative", stack: card.stacked ? "zero" : null, axis: axis(card.figures[0].format, greatest) },
        color: paint, order: { field: "s", type: "quantitative" }, tooltip: tip.fields,
        ...(!card.stacked && data.series.length > 1 ? { xOffset: { field: "s", type: "ordinal" } } : {}),
      },
    }];
    if (card.goal !== null) layer.push(rule({ y: { datum: card.goal, type: "quantitative" } }));
    return { draw: (height) => ({ data: { values }, layer, width, height }), entries: data.series[0] === null ? [] : swatches(data.series) };
  }

  function across(card, data, width) {
    const sum = (x) => data.points.reduce((total, point) => total + (point.x === x ? point.v || 0 : 0), 0);
    const ys = card.stacked ? [...data.xs].sort((one, other) => sum(other) - sum(one) || byText(one, other)) : data.xs;
    const tip = tips(card, data, ys);
    const of = new Map(tip.values.map((value) => [value.x, value]));
    const format = card.figures[0].format;
    const greatest = Math.max(...(card.stacked ? ys.map(sum) : data.points.map((point) => point.v || 0)), card.goal || 0);
    const values = data.points.map((point) => ({ ...of.get(point.x), ...point, s: data.series.indexOf(point.s), text: format === "money" ? big(point.v, format) : shown(point.v, format) }));
    const y = {
      field: "x", type: "nominal", scale: { domain: ys, paddingInner: 0.34, paddingOuter: 0.1 },
      axis: { grid: false, labelColor: "var(--ink)", labelExpr: "datum.value === null ? '(none)' : datum.value", labelLimit: Math.min(230, width * 0.42) },
    };
    // What stands behind the longest bar needs room, the more of it the narrower the chart.
    const room = card.stacked || data.series.length > 1 ? 1 : 1 + Math.min(0.6, 90 / (width - 140));
    const x = {
      field: "v", type: "quantitative", stack: card.stacked ? "zero" : null, scale: { domain: [0, greatest * room || 1], nice: room === 1 },
      axis: room === 1 ? { ...axis(format, greatest), tickCount: Math.max(2, Math.floor(width / 110)) } : null,
    };
    const paint = { field: "s", type: "ordinal", scale: { domain: data.series.map((_, place) => place), range: data.series.map((_, place) => color(place)) }, legend: null };
    const layer = [{
      mark: { type: "bar", cornerRadiusEnd: card.stacked ? 0 : 3, stroke: card.stacked ? "var(--card)" : null, strokeWidth: 1 },
      encoding: { x, y, color: paint, order: { field: "s", type: "quantitative" }, tooltip: tip.fields },
    }];
    // Where a goal is drawn its line would run through numbers at the ends of bars.
    const right = card.goal !== null;
    if (room > 1) layer.push({ mark: { type: "text", align: right ? "right" : "left", dx: right ? 0 : 6, color: "var(--ink)" }, encoding: { x: right ? { value: "width" } : x, y, text: { field: "text" } } });
    if (card.goal !== null) layer.push(rule({ x: { datum: card.goal, type: "quantitative" } }));
    return { draw: (height) => ({ data: { values }, layer, width, height: Math.min(height, Math.max(90, ys.length * 46)) }), entries: data.series[0] === null ? [] : swatches(data.series) };
  }

  function heat(card, data, width) {
    const format = card.figures[0].format;
    const xs = TIMES.includes(data.axis) ? steps(data.axis, data.xs) : data.xs;
    const values = data.points.filter((point) => point.v !== null).map((point) => ({ ...point, label: valueText(data.axis, point.x), value: shown(point.v, format) }));
    const numbers = values.map((value) => value.v);
    const [least, greatest] = [Math.min(...numbers), Math.max(...numbers)];
    const layer = [{
      mark: { type: "rect", color: color(0), cornerRadius: 2 },
      encoding: {
        x: {
          field: "x", type: "ordinal", scale: { domain: xs, paddingInner: 0.06 },
          axis: { grid: false, labelAngle: 0, labelExpr: `(${JSON.stringify(shortLabels(data.axis, xs, (width - 130) / xs.length))})[datum.value]`, labelOverlap: false, labelLineHeight: 15 },
        },
        y: { field: "s", type: "nominal", scale: { domain: data.series, paddingInner: 0.08 }, axis: { grid: false, labelColor: "var(--ink)", labelLimit: Math.min(230, width * 0.36) } },
        opacity: { field: "v", type: "quantitative", scale: { domain: least < greatest ? [least, greatest] : [0, greatest || 1], range: [0.1, 1] }, legend: null },
        tooltip: [{ field: "s", title: heading(card.by[1]) }, { field: "label", title: heading(data.axis) }, { field: "value", title: card.figures[0].label }],
      },
    }];
    const entries = [["ramp", `background:linear-gradient(90deg, color-mix(in srgb, ${color(0)} 10%, transparent), ${color(0)})`, `${shown(least, format)} to ${shown(greatest, format)} ${card.figures[0].label.toLowerCase()}`]];
    return { draw: (height) => ({ data: { values }, layer, width, height: Math.min(height, data.series.length * 44 + 40) }), entries };
  }

  function pie(card, data, width) {
    const format = card.figures[0].format;
    const total = data.points.reduce((sum, point) => sum + (point.v || 0), 0);
    const share = (value) => `${grouped((100 * value) / total, 1)}${THIN}%`;
    // A pie is broken down by what stands on its axis; its colours follow that.
    const values = data.points.map((point, place) => ({ ...point, place, label: point.x === null ? "(none)" : point.x, value: shown(point.v, format), share: share(point.v) }));
    const layer = (side) => [{
      mark: { type: "arc", innerRadius: side * 0.31, outerRadius: side * 0.49, stroke: "var(--card)", strokeWidth: 2 },
      encoding: {
        theta: { field: "v", type: "quantitative", stack: true }, order: { field: "place", type: "quantitative" },
        color: { field: "place", type: "ordinal", scale: { domain: values.map((value) => value.place), range: values.map((value) => color(value.place)) }, legend: null },
        tooltip: [{ field: "label", title: heading(data.axis) }, { field: "value", title: card.figures.length === 1 ? card.figures[0].label : named(card.result[card.result.length - 1]) }, { field: "share", title: "Share" }],
      },
    }];
    const entries = values.map((value) => ["", `background:${color(value.place)}`, value.label, make("b", {}, value.share), make("span", {}, format === "money" ? big(value.v, format) : value.value)]);
    const draw = (height) => {
      const side = Math.min(width, height, 230);
      return { data: { values }, layer: layer(side), width: side, height: side };
    };
    return { draw, entries };
  }

  // ---- Cards ----

  const isNumber = (column, value) => typeof value === "number" || (typeof value === "string" && /^-?\d+(\.\d+)?$/.test(value) && column !== "run_id");

  function tableOf(card, rows) {
    const figures = Object.fromEntries(card.figures.map((figure) => [figure.name, figure]));
    const labels = card.result.map((column) => (figures[column] ? figures[column].label : heading(column)));
    const numeric = card.result.map((column, place) => rows.some((row) => isCell(row[place]) || (card.columns.length && isNumber(column, row[place]))));
    // A column's numbers have as many decimals as the one with most.
    const digits = card.result.map((_, place) => Math.min(2, Math.max(0, ...rows.map((row) => (card.columns.length && numeric[place] && row[place] !== null ? (String(row[place]).split(".")[1] || "").length : 0)))));
    function cell(row, place) {
      const [column, value] = [card.result[place], row[place]];
      if (isCell(value)) {
        const format = card.fold ? card.figures.find((figure) => figure.label === row[place - 1]).format : figures[column].format;
        return make("td", { class: "number", "data-value": value.text === null ? "" : value.text }, shown(value.number, format));
      }
      const raw = value === null ? "" : String(value);
      let text = value === null && card.columns.length ? "–" : valueText(column, value);
      if (card.columns.length && numeric[place] && value !== null) text = grouped(Number(value), digits[place]);
      else if (/^\d{4}-\d\d-\d\d \d\d:\d\d/.test(raw)) text = `${dayText(raw.slice(0, 10))}, ${raw.slice(11, 16)}`;
      const kind = raw === "late" || raw === "failed" ? "late" : numeric[place] ? "number" : undefined;
      return make(place === 0 ? "th" : "td", { scope: place === 0 ? "row" : undefined, class: kind, "data-value": raw }, text);
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
    return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table: ${card.title}` },
      make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body));
  }

  function changeOf(card, before, now, days) {
    const period = days === 1 ? "the day before" : `the ${grouped(days, 0)} days before`;
    if (before === null || now === null) return [make("b", {}, "–"), ` no figure for ${before === null ? period : "this period"}`];
    const points = card.figures[0].format === "percent";
    if (!points && before === 0) return [make("b", {}, "–"), now === 0 ? ` none in ${period} either` : ` none in ${period}`];
    const change = points ? now - before : (100 * (now - before)) / Math.abs(before);
    const rounded = Math.round(change * 10) / 10;
    if (rounded === 0) return [make("b", {}, "No change"), ` against ${period}`];
    const sign = rounded > 0 ? "+" : "";
    return [make("b", {}, `${sign}${grouped(rounded, 1)}${THIN}${points ? "points" : "%"}`), ` against ${period}`];
  }

  // The figure itself, in a size that lets it stand on one line.
  function valueOf(now, format) {
    const text = big(now.number, format);
    return make("p", { class: "value", style: `--characters:${Math.max(6, text.length)}`, "data-value": now.text === null ? "" : now.text, title: shown(now.number, format) }, text);
  }

  function headline(card, found) {
    const format = card.figures[0].format;
    const now = found.rows[found.rows.length - 1][card.compared ? 1 : 0];
    const parts = [valueOf(now, format)];
    if (card.goal !== null && now.number !== null) {
      const reached = now.number >= card.goal;
      parts.push(make("p", { class: "goal" }, make("span", { class: reached ? "reached" : "missed" }, reached ? "✓ reached" : "✗ below"), ` the goal of ${shown(card.goal, format).replace(".0", "")}`));
    }
    if (card.compared) {
      const before = found.rows[0][1];
      const told = found.partly && before.number !== null && found.first <= found.before.to && found.found
        ? [...changeOf(card, before.number, now.number, found.days), ` (data begin ${dayText(found.first)})`]
        : changeOf(card, before.number, now.number, found.days);
      parts.push(make("p", { class: "change", "data-before": before.text === null ? "" : before.text }, ...told));
    }
    return parts;
  }

  const drawn = new Map(); // what a card's chart needs to be let go

  async function chart(card, found, box, body) {
    const data = plotted(card, found.rows);
    const isEmpty = !data.points.some((point) => point.v !== null && (card.chart !== "pie" || point.v > 0));
    if (!found.found || isEmpty) {
      body.replaceChildren(make("p", { class: "empty" }, "No data for this selection"));
      return;
    }
    // Cards of one size are of one height: the plot takes what its legend and its note leave.
    const plot = make("div", { class: "plot" });
    body.replaceChildren(plot);
    const width = Math.max(220, Math.floor(plot.getBoundingClientRect().width));
    const { entries, draw: drawing } = CHARTS[card.chart](card, data, width);
    if (card.goal !== null) entries.push(["dash", "color:var(--ink)", `goal ${shown(card.goal, card.figures[0].format).replace(".0", "")}`]);
    if (entries.length) body.append(legendOf(entries, card.chart));
    const part = partMonths(card, data);
    if (part) body.append(make("p", { class: "note" }, part));
    const spec = drawing(Math.max(130, card.size[1] * 52 - body.getBoundingClientRect().height));
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", `${card.title}. ${card.answers} A chart of ${plural(data.points.length, "value")}; the table below it has the same numbers.`);
    const inner = make("div");
    plot.append(inner);
    const whole = { $schema: "https://vega.github.io/schema/vega-lite/v6.json", autosize: { type: "fit", contains: "padding" }, padding: { left: 2, right: 8, top: 6, bottom: 2 }, config: CONFIG, ...spec };
    const view = await window.vegaEmbed(inner, whole, { ast: true, renderer: "svg", actions: false, defaultStyle: false, tooltip: { disableDefaultStyle: true } });
    drawn.set(card, view);
  }

  // Sums of a month that the period cuts are less than the month's.
  function partMonths(card, data) {
    if (data.axis !== "month" || !card.filters.includes("period") || card.figures.some((figure) => figure.per !== null)) return null;
    const ends = [];
    if (state.from.slice(8) !== "01" && data.xs[0] === GRAINS.month(state.from)) ends.push(`${monthText(state.from)} counts from ${shortDay(state.from)}`);
    if (iso(utc(state.to) + DAY).slice(8) !== "01" && data.xs[data.xs.length - 1] === GRAINS.month(state.to)) ends.push(`${monthText(state.to)} up to ${shortDay(state.to)}`);
    return ends.length ? `${ends.join(", ")}.` : null;
  }

  const boxes = new Map();

  function frame(card) {
    const isHeadline = card.chart === "headline";
    const id = `card-${page.cards.indexOf(card)}`;
    const box = make("section", { class: `card ${isHeadline ? "headline" : card.chart}${card.size[0] <= 6 ? " half" : ""}`, id, style: `grid-column: span ${card.size[0]}`, "aria-labelledby": `${id}-title`, "data-card": card.title });
    const answers = make("p", { class: "answers" }, card.answers);
    const body = make("div", { class: isHeadline ? "figure" : "body" });
    const unfiltered = make("p", { class: "note", hidden: true });
    box.append(make("h2", { id: `${id}-title` }, card.title), ...(isHeadline ? [body, unfiltered, answers] : [answers, unfiltered, body]));
    const one = { box, body, unfiltered };
    if (card.chart === "table") box.classList.add("shown");
    else if (!isHeadline) {
      one.behind = make("details", { class: "behind" }, make("summary", {}, "Table"));
      one.behind.addEventListener("toggle", () => one.behind.open && fillTable(card));
      box.append(one.behind);
    }
    boxes.set(card, one);
    return box;
  }

  function fillTable(card) {
    const { behind, found } = boxes.get(card);
    behind.querySelector(".scroll")?.remove();
    behind.append(tableOf(card, found.rows));
  }

  async function draw(card) {
    const one = boxes.get(card);
    const found = (one.found = result(card, state));
    const passing = page.choices.filter((name) => !card.filters.includes(name) && (name === "period" ? hasPeriod() : state[name].length));
    one.unfiltered.hidden = passing.length === 0;
    one.unfiltered.textContent = `Not filtered by ${passing.map((name) => (name === "period" ? "period" : LISTS[name][0].toLowerCase())).join(" and ")}`;
    drawn.get(card)?.finalize();
    drawn.delete(card);
    if (card.chart === "headline") one.body.replaceChildren(...headline(card, found));
    else if (card.chart === "table") one.body.replaceChildren(found.rows.length ? tableOf(card, found.rows) : make("p", { class: "empty" }, "No data for this selection"));
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

  const LISTS = { department: ["Department", "All departments"], visit_type: ["Type of visit", "All types"], dataset: ["Dataset", "All datasets"] };
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
      if (!card.filters.includes(name)) continue;
      if (table.by) table.by[name].values.forEach((value) => value !== null && found.add(value));
      else table.rows.forEach((row) => found.add(row[table.columns.indexOf(name)]));
    }
    return [...found].sort(byText);
  }

  function bounds() {
    const days = page.cards.flatMap((card) => page.tables[card.table].by?.day?.values || []).filter((day) => day !== null).sort();
    return days.length ? days[0] : page.state.newest;
  }

  function quickOnes() {
    const newest = page.state.newest;
    return [
      ["30 days", dayBefore(newest, 29)], ["90 days", dayBefore(newest, 89)],
      [`${page.days} days`, dayBefore(newest, page.days - 1)], ["All", bounds()],
    ];
  }

  function buildFilters() {
    const form = at("filters");
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    if (has("period")) {
      const input = (name, label) => make("label", { class: "field" }, label, make("input", { type: "date", id: `filter-${name}`, onchange: (event) => {
        if (isDay(event.target.value)) state[name] = event.target.value;
        else if (name === "to") state.to = page.state.newest;
        else state.from = dayBefore(state.to, page.days - 1);
        changed();
      } }));
      form.append(make("div", { class: "dates" }, input("from", "From"), input("to", "To")));
      form.append(make("div", { class: "field" }, "Up to the newest date", make("div", { class: "quick", role: "group", "aria-label": "Period up to the newest date" },
        ...quickOnes().map(([label, from]) => make("button", { type: "button", "data-from": from, onclick: () => {
          Object.assign(state, { from, to: page.state.newest });
          changed();
        } }, label)))));
    }
    for (const name of Object.keys(LISTS).filter(has)) {
      const boxes_of = values(name).map((value) => make("label", {}, make("input", { type: "checkbox", name, value, onchange: () => {
        state[name] = [...form.querySelectorAll(`input[name="${name}"]:checked`)].map((box) => box.value);
        changed();
      } }), value));
      const pick = make("details", { class: "pick" }, make("summary", { id: `filter-${name}` }), make("fieldset", { "aria-label": LISTS[name][0] }, ...boxes_of));
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
    form.append(make("button", { type: "button", id: "reset", onclick: () => {
      Object.assign(state, { to: page.state.newest, from: dayBefore(page.state.newest, page.days - 1), department: [], visit_type: [], dataset: [] });
      changed();
    } }, "Reset"));
  }

  function reflect() {
    for (const name of ["from", "to"]) if (at(`filter-${name}`)) at(`filter-${name}`).value = state[name];
    for (const button of document.querySelectorAll(".quick button")) button.setAttribute("aria-pressed", String(state.to === page.state.newest && state.from === button.dataset.from));
    const chosen_of = [];
    if (has("period")) chosen_of.push(`${dayText(state.from)} to ${dayText(state.to)}`);
    for (const name of Object.keys(LISTS).filter(has)) {
      at(`filter-${name}`).textContent = state[name].length ? state[name].join(", ") : LISTS[name][1];
      chosen_of.push(state[name].length ? state[name].join(", ") : LISTS[name][1].toLowerCase());
      for (const box of document.querySelectorAll(`input[name="${name}"]`)) box.checked = state[name].includes(box.value);
    }
    const wrong = has("period") && state.from > state.to;
    at("chosen").classList.toggle("wrong", wrong);
    at("chosen").textContent = wrong ? "The period ends before it begins: choose an earlier first day or a later last one." : chosen_of.join(" · ");
    at("reset").hidden = !address();
    for (const link of at("nav").querySelectorAll("a")) link.hash = address();
  }

  // ---- What stands on every page ----

  function about() {
    const { newest, built, complete, rejected, due } = page.state;
    const item = (kind, ...parts) => make("li", { class: kind }, ...parts);
    const items = [item("", "Data up to ", make("b", {}, dayText(newest)))];
    if (complete !== null) items.push(item(Number(complete) >= 98 ? "good" : "warn", make("b", {}, shown(Number(complete), "percent")), " of the revenue sent is in these figures"));
    const [bad, all] = rejected;
    if (all) items.push(item("", make("b", {}, grouped(bad, 0)), ` of ${grouped(all, 0)} rows rejected that day`));
    const late = due.filter(([, next]) => next !== null && Date.now() > Date.parse(`${next}Z`)).map(([name]) => name);
    if (late.length) items.push(item("warn", late.length === due.length ? "Newer files are due" : `Newer files are due: ${late.join(", ")}`));
    items.push(item("", `Built ${dayText(built.slice(0, 10))}, ${built.slice(11, 16)} UTC`));
    at("state").append(...items);
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
    for (const { name, slug } of page.dashboards) at("nav").append(make("a", { href: `${slug}.html`, "aria-current": slug === page.slug ? "page" : undefined }, name));
    at("nav").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  }

  function footer() {
    at("footer").append(
      make("p", {}, "Days are UTC. Figures stand on accepted rows; what was rejected is on the page Data Quality. The page holds sums and no patients."),
    );
  }

  function index() {
    at("about").textContent = `The figures of the ${page.days} days up to the newest date.`;
    readAddress();
    const boards = page.index.map(({ about: text, cards, tables }, place) => {
      const { name, slug } = page.dashboards[place];
      const list = make("dl", {}, ...cards.map((card) => {
        const { rows, days } = result(card, state, tables);
        const format = card.figures[0].format;
        const now = rows[rows.length - 1][card.compared ? 1 : 0];
        const more = card.compared ? make("div", { class: "change" }, ...changeOf(card, rows[0][1].number, now.number, days)) : null;
        return make("div", {}, make("dt", {}, card.title), make("dd", {}, valueOf(now, format), more));
      }));
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
  navigation();
  footer();
  if (page.state.newest === null) {
    at("cards").append(make("p", { class: "empty", style: "grid-column: 1 / -1; padding: 24px" }, "The warehouse holds no date yet: run one with \"make run DATE=2026-01-31\", then \"make dashboards\"."));
    at("about").textContent = page.about || "";
    document.documentElement.dataset.state = "ready";
    return;
  }
  about();
  Promise.resolve(page.index ? index() : dashboard()).catch(fail);
})();
