// The cards' charts, as Vega-Lite has them. Colours are the style sheet's, so that they follow its theme.

const CONFIG = {
  background: null,
  font: getComputedStyle(document.body).fontFamily,
  view: { stroke: null },
  axis: {
    labelColor: "var(--soft)",
    labelFontSize: 12,
    labelPadding: 7,
    title: null,
    titleColor: "var(--soft)",
    titleFontWeight: "normal",
    ticks: false,
    domain: false,
    gridColor: "var(--rule)",
    labelLimit: 190,
  },
  text: { color: "var(--soft)", fontSize: 12 },
  aria: false,
};
const color = (place) => `var(--c${place % 8})`;
const UNIT = { percent: "%", hours: "h", days: "d" };

// Gives each series the colour of its place.
function paintOf(series, type) {
  const places = series.map((_, place) => place);
  return { field: "s", type, scale: { domain: places, range: places.map(color) }, legend: null };
}

// Returns a value as a literal of Vega's expressions, which refuse control characters and line separators in a string.
function literal(value) {
  const escape = (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return JSON.stringify(value).replace(/[\u007f-\u009f\u2028\u2029\ufeff]/g, escape);
}

function axis(format, greatest) {
  const number = greatest >= 1000 ? "replace(format(datum.value, '~s'), 'G', 'B')" : "format(datum.value, '~f')";
  const unit = UNIT[format];
  const title = format === "money" ? page.currency : null;
  return { labelExpr: unit ? `${number} + '${THIN}${unit}'` : number, tickCount: 5, title };
}

// Every step from the first to the last, so that a day without a visit is drawn as one.
function steps(grain, keys) {
  const all = [];
  const days = keys.filter((key) => key !== null);
  const last = utc(days[days.length - 1]);
  // After the year 9999 comes no day that can be read, and nothing is at most that.
  for (let key = days[0]; utc(key) <= last; key = after(grain, key)) all.push(key);
  return all;
}

// The steps of time that the period, or the newest date, cuts: the first and the last day that each of them holds.
function cutSteps(card, axisColumn, xs) {
  const cut = new Map();
  if (!TIMES.includes(axisColumn) || axisColumn === "day" || !card.filters.includes("period")) return cut;
  const from = card.whole ? null : state.from;
  const to = card.whole || state.to > page.state.newest ? page.state.newest : state.to;
  for (const x of xs.filter((one) => one !== null)) {
    const next = after(axisColumn, x);
    const isLate = from !== null && from > x && from < next;
    const isEarly = utc(to) + DAY < utc(next) && to >= x;
    if (isLate || isEarly) cut.set(x, { from: isLate ? from : null, to: isEarly ? to : null });
  }
  return cut;
}

// What is drawn: points of an axis value, a series and a number.
function plotted(card, { rows, by }) {
  const [axisColumn] = by.length ? by : card.fold;
  const points = [];
  for (const row of rows) {
    if (card.result.length === 2) points.push({ x: row[0], s: null, v: row[1].number });
    else if (isCell(row[1]))
      card.figures.forEach((figure, place) => points.push({ x: row[0], s: figure.label, v: row[1 + place].number }));
    else points.push({ x: row[0], s: row[1] === null ? "(none)" : row[1], v: row[2].number });
  }
  const xs = [...new Set(points.map((point) => point.x))];
  const found = new Set(points.map((point) => point.s));
  const labels = card.figures.map((figure) => figure.label);
  const series = labels.every((label) => found.has(label)) && card.fold ? labels : [...found].sort(byText);
  return { axis: axisColumn, points, xs, series };
}

function legendOf(entries, chart) {
  return make(
    "ul",
    { class: `legend ${chart}` },
    ...entries.map(([kind, style, ...text]) => make("li", {}, make("i", { class: kind, style }), ...text)),
  );
}
const swatches = (series) => series.map((name, place) => ["", `background:${color(place)}`, name]);

const CHARTS = { line: overTime, area: overTime, bar, row: across, heat, pie };

function tips(card, data, xs) {
  const found = new Map(
    xs.map((x) => [x, { x, t: TIMES.includes(data.axis) ? utc(x) : 0, label: valueText(data.axis, x) }]),
  );
  for (const point of data.points) {
    const place = data.series.indexOf(point.s);
    if (found.has(point.x)) found.get(point.x)[`s${place}`] = shown(point.v, card.figures[0].format);
  }
  const fields = [{ field: "label", title: heading(data.axis) }];
  data.series.forEach((name, place) =>
    fields.push({ field: `s${place}`, title: name === null ? card.figures[0].label : name }),
  );
  return {
    values: [...found.values()].map((tip) => ({
      ...Object.fromEntries(data.series.map((_, place) => [`s${place}`, "–"])),
      ...tip,
    })),
    fields,
  };
}

const timeFormat = (grain, span) =>
  page.grains[grain] > 31 ? "%Y" : span > 120 * DAY || grain === "month" ? "%b %Y" : "%-d %b";

function overTime(card, data, width) {
  const summed = card.figures.every((figure) => figure.per === null);
  const all = steps(data.axis, data.xs);
  const cut = cutSteps(card, data.axis, all);
  const values = data.series.flatMap((name, place) => {
    const of = new Map(data.points.filter((point) => point.s === name).map((point) => [point.x, point.v]));
    const own = all.map((x) => (of.has(x) ? of.get(x) : summed ? 0 : null));
    const isNone = (step) =>
      own[step] === null || own[step] === undefined || (card.chart === "line" && cut.has(all[step]));
    return all.map((x, step) => {
      const isAlone = !isNone(step) && isNone(step - 1) && isNone(step + 1);
      return { x, t: utc(x), s: place, v: own[step], isAlone, isCut: cut.has(x) };
    });
  });
  // A part of a month hangs on the whole month beside it by a dashed line.
  const links = data.series.flatMap((_, place) => {
    const of = values.slice(place * all.length, (place + 1) * all.length);
    return [of.slice(0, 2), of.slice(-2)].flatMap((ends, end) =>
      ends.some((one) => one.isCut) && ends.every((one) => one.v !== null && one.v !== undefined) ? ends.map((one) => ({ ...one, end })) : [],
    );
  });
  const numbers = values.map((value) => value.v).filter((value) => value !== null && value !== undefined);
  if (card.goal !== null) numbers.push(card.goal);
  const greatest = Math.max(...numbers, 0);
  const least = Math.min(...numbers);
  // Lines of numbers that lie close together high up need an axis of their own, which says that it is one.
  const isTruncated = card.chart === "line" && least > greatest * 0.6;
  const smoothed = card.chart === "area" && data.axis === "day" && all.length >= 60 && data.series.length === 1;
  const ticks = Math.max(3, Math.floor(width / 110));
  const x = {
    field: "t",
    type: "temporal",
    scale: { type: "utc", padding: 2 },
    axis: {
      grid: false,
      // Of few days each has a tick: a scale of time divides them further, and days would be named twice.
      tickCount: data.axis === "day" && all.length <= ticks ? { interval: "day", step: 1 } : ticks,
      format: timeFormat(data.axis, utc(all[all.length - 1]) - utc(all[0])),
      labelOverlap: true,
      labelFlush: 12,
      labelPadding: 10,
    },
  };
  const y = {
    field: "v",
    type: "quantitative",
    axis: axis(card.figures[0].format, greatest),
    scale: { zero: !isTruncated, nice: true },
  };
  const paint = paintOf(data.series, "nominal");
  const few = all.length <= 40;
  const layer = [];
  if (card.chart === "area") {
    layer.push({
      mark: { type: "area", opacity: smoothed ? 0.22 : 0.25, line: smoothed ? false : { strokeWidth: 1.8 } },
      encoding: { x, y: { ...y, stack: card.stacked ? "zero" : null }, color: paint },
    });
    if (smoothed) {
      layer.push({
        transform: [{ window: [{ op: "mean", field: "v", as: "mean" }], sort: [{ field: "t" }], frame: [-3, 3] }],
        mark: { type: "line", strokeWidth: 2, interpolate: "monotone" },
        encoding: { x, y: { ...y, field: "mean" }, color: paint },
      });
    }
  } else {
    if (values.some((value) => !value.isCut && value.v !== null && value.v !== undefined))
      layer.push({
        transform: [{ calculate: "datum.isCut ? null : datum.v", as: "v" }],
        mark: { type: "line", strokeWidth: 2.2, point: few ? { size: 34, filled: true } : false, strokeJoin: "round" },
        encoding: { x, y, color: paint },
      });
    if (links.length)
      layer.push({
        data: { values: links },
        mark: { type: "line", strokeWidth: 1.6, strokeDash: [3, 4] },
        encoding: { x, y, color: paint, detail: { field: "end", type: "nominal" } },
      });
  }
  if (values.some((value) => value.isCut && value.v !== null && value.v !== undefined))
    layer.push({
      transform: [{ filter: "datum.isCut" }],
      mark: { type: "point", size: 40, strokeWidth: 1.6, fill: "var(--card)", opacity: 1 },
      encoding: { x, y, color: paint },
    });
  if (isTruncated)
    layer.push({
      data: { values: [{}] },
      mark: { type: "text", text: "≈", fontSize: 15, align: "left", baseline: "bottom", dx: 2 },
      encoding: { x: { value: 0 }, y: { value: "height" } },
    });
  // A line begins at one value and ends at another: of a value between two gaps it shows nothing.
  if (!(few && card.chart === "line") && values.some((value) => value.isAlone))
    layer.push({
      transform: [{ filter: "datum.isAlone" }],
      mark: { type: "point", size: 22, filled: true, opacity: 1 },
      encoding: { x, y, color: paint },
    });
  if (card.goal !== null) layer.push(rule({ y: { datum: card.goal, type: "quantitative" } }));
  const tip = tips(card, data, data.xs);
  layer.push({
    data: { values: tip.values },
    params: [{ name: "over", select: { type: "point", on: "pointerover", clear: "pointerout" } }],
    mark: {
      type: "rule",
      strokeWidth: Math.max(2, Math.min(40, width / Math.max(1, all.length))),
      color: "var(--soft)",
    },
    encoding: {
      x,
      opacity: { condition: { param: "over", empty: false, value: 0.22 }, value: 0 },
      tooltip: tip.fields,
    },
  });
  const entries = data.series[0] === null ? [] : swatches(data.series);
  if (smoothed)
    entries.push(
      ["", `background:${color(0)};opacity:.35`, "each day"],
      ["thin", `background:${color(0)}`, "mean of 7 days"],
    );
  const note = isTruncated ? "The axis does not begin at 0." : null;
  return { draw: (height) => ({ data: { values }, layer, width, height }), entries, note };
}

const rule = (encoding) => ({
  mark: { type: "rule", strokeDash: [5, 4], strokeWidth: 1.5, color: "var(--ink)" },
  encoding,
});

const LABEL_ROOM = { month: 34, quarter: 34 };
const SHORT = { day: shortDay, week: shortDay, month: shortMonth, quarter: quarterOf };

// Labels of a time axis that say the year once; of days only where they are more than those of a year.
function shortLabels(axisColumn, xs, room) {
  const isLong = TIMES.includes(axisColumn) && utc(xs[xs.length - 1]) - utc(xs[0]) > 366 * DAY;
  const every = Math.ceil((LABEL_ROOM[axisColumn] || 46) / room);
  return Object.fromEntries(
    xs.map((x, place) => {
      if (x === null) return ["null", "(none)"];
      if (!TIMES.includes(axisColumn))
        return [x, place % Math.ceil(24 / room) ? "" : inLines(valueText(axisColumn, x), Math.max(4, Math.floor(room / 7.4)))];
      if (place % every) return [x, ""];
      if (axisColumn === "year" || axisColumn === "decade") return [x, valueText(axisColumn, x)];
      const short = SHORT[axisColumn](x);
      const isNewYear = place === 0 || x.slice(0, 4) !== xs[place - every].slice(0, 4);
      return [x, isNewYear && (axisColumn in MONTHS_OF || isLong) ? [short, x.slice(0, 4)] : short];
    }),
  );
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
  const heights = xs.map((x) => {
    const own = data.points.filter((point) => point.x === x).map((point) => point.v || 0);
    return card.stacked ? own.reduce((sum, value) => sum + value, 0) : Math.max(...own, 0);
  });
  const [highest, second] = [...heights, 0, 0].sort((one, other) => other - one);
  // Beside a first file of years the others would be flat: one bar is cut, and its number stands on it.
  const isClipped = card.clip && second > 0 && highest > 4 * second;
  const greatest = isClipped ? second * 1.25 : Math.max(highest, card.goal || 0);
  const cut = cutSteps(card, data.axis, xs);
  const room = (width - 50) / xs.length;
  const labels = shortLabels(data.axis, xs, room);
  const x = {
    field: "x",
    type: "ordinal",
    scale: { domain: xs, paddingInner: room < 14 ? 0.1 : 0.32, paddingOuter: 0.16 },
    axis: {
      grid: false,
      labelAngle: 0,
      labelExpr: `(${literal(labels)})[datum.value]`,
      labelOverlap: false,
      labelLineHeight: 15,
    },
  };
  const tip = tips(card, data, xs);
  const of = new Map(tip.values.map((value) => [value.x, value]));
  const values = data.points.map((point) => ({
    ...of.get(point.x),
    ...point,
    s: data.series.indexOf(point.s),
    isCut: cut.has(point.x),
  }));
  const paint = paintOf(data.series, "ordinal");
  const layer = [
    {
      mark: {
        type: "bar",
        clip: isClipped,
        cornerRadiusEnd: card.stacked ? 0 : 3,
        stroke: card.stacked && room > 20 ? "var(--card)" : null,
        strokeWidth: 1,
      },
      encoding: {
        x,
        y: {
          field: "v",
          type: "quantitative",
          stack: card.stacked ? "zero" : null,
          axis: axis(card.figures[0].format, greatest),
          ...(isClipped ? { scale: { domain: [0, greatest], nice: false } } : {}),
        },
        color: paint,
        ...(cut.size ? { opacity: { condition: { test: "datum.isCut", value: 0.5 }, value: 1 } } : {}),
        order: { field: "s", type: "quantitative" },
        tooltip: tip.fields,
        ...(!card.stacked && data.series.length > 1 ? { xOffset: { field: "s", type: "ordinal" } } : {}),
      },
    },
  ];
  if (card.goal !== null) layer.push(rule({ y: { datum: card.goal, type: "quantitative" } }));
  const tall = xs[heights.indexOf(highest)];
  const reach = shown(highest, card.figures[0].format);
  if (isClipped)
    layer.push({
      data: { values: [{ x: tall, text: `▲ ${reach}` }] },
      mark: { type: "text", align: "left", baseline: "top", dx: 4, dy: 3, color: "var(--ink)" },
      encoding: { x: { ...x, bandPosition: 1 }, y: { value: 0 }, text: { field: "text" } },
    });
  return {
    draw: (height) => ({ data: { values }, layer, width, height }),
    entries: data.series[0] === null ? [] : swatches(data.series),
    note: isClipped ? `The bar of ${valueText(data.axis, tall)} is cut: it reaches ${reach}.` : null,
  };
}

function across(card, data, width) {
  const sum = (x) => data.points.reduce((total, point) => total + (point.x === x ? point.v || 0 : 0), 0);
  const ys = card.stacked ? [...data.xs].sort((one, other) => sum(other) - sum(one) || byText(one, other)) : data.xs;
  const tip = tips(card, data, ys);
  const of = new Map(tip.values.map((value) => [value.x, value]));
  const format = card.figures[0].format;
  const greatest = Math.max(...(card.stacked ? ys.map(sum) : data.points.map((point) => point.v || 0)), card.goal || 0);
  const values = data.points.map((point) => ({
    ...of.get(point.x),
    ...point,
    s: data.series.indexOf(point.s),
    at: point.v || 0,
    text: format === "money" ? big(point.v, format) : shown(point.v, format),
  }));
  const y = {
    field: "x",
    type: "nominal",
    scale: { domain: ys, paddingInner: 0.34, paddingOuter: 0.1 },
    axis: {
      grid: false,
      labelColor: "var(--ink)",
      labelExpr: "datum.value === null ? '(none)' : datum.value",
      labelLimit: Math.min(230, width * 0.42),
    },
  };
  // What stands behind the longest bar needs room, the more of it the narrower the chart.
  const label = format === "money" ? 130 : 90;
  const room = card.stacked || data.series.length > 1 ? 1 : 1 + Math.min(format === "money" ? 1.2 : 0.6, label / (width - 140));
  const x = {
    field: "v",
    type: "quantitative",
    stack: card.stacked ? "zero" : null,
    scale: { domain: [0, greatest * room || 1], nice: room === 1 },
    axis: room === 1 ? { ...axis(format, greatest), tickCount: Math.max(2, Math.floor(width / 110)) } : null,
  };
  const paint = paintOf(data.series, "ordinal");
  const layer = [
    {
      mark: {
        type: "bar",
        cornerRadiusEnd: card.stacked ? 0 : 3,
        stroke: card.stacked ? "var(--card)" : null,
        strokeWidth: 1,
      },
      encoding: { x, y, color: paint, order: { field: "s", type: "quantitative" }, tooltip: tip.fields },
    },
  ];
  // Where a goal is drawn its line would run through numbers at the ends of bars.
  const right = card.goal !== null;
  if (room > 1)
    layer.push({
      mark: { type: "text", align: right ? "right" : "left", dx: right ? 0 : 6, color: "var(--ink)" },
      encoding: { x: right ? { value: "width" } : { ...x, field: "at" }, y, text: { field: "text" } },
    });
  if (card.goal !== null) layer.push(rule({ x: { datum: card.goal, type: "quantitative" } }));
  return {
    draw: (height) => ({ data: { values }, layer, width, height: Math.min(height, Math.max(90, ys.length * 46)) }),
    entries: data.series[0] === null ? [] : swatches(data.series),
  };
}

function heat(card, data, width) {
  const format = card.figures[0].format;
  const xs = TIMES.includes(data.axis) ? steps(data.axis, data.xs) : data.xs;
  const values = data.points
    .filter((point) => point.v !== null)
    .map((point) => ({ ...point, label: valueText(data.axis, point.x), value: shown(point.v, format) }));
  const numbers = values.map((value) => value.v);
  const [least, greatest] = [Math.min(...numbers), Math.max(...numbers)];
  const labels = shortLabels(data.axis, xs, (width - 130) / xs.length);
  const share = (value) => (least < greatest ? (value - least) / (greatest - least) : 1);
  for (const value of values) {
    value.text = upTo2.format(Math.round(value.v * (greatest < 10 ? 10 : 1)) / (greatest < 10 ? 10 : 1));
    value.isDark = share(value.v) > 0.7; // where the ground is as far from one ink as from the other, in light and dark
  }
  const digits = Math.max(...values.map((value) => value.text.length));
  const layer = [
    {
      mark: { type: "rect", color: color(0), cornerRadius: 2 },
      encoding: {
        x: {
          field: "x",
          type: "ordinal",
          scale: { domain: xs, paddingInner: 0.06 },
          axis: {
            grid: false,
            labelAngle: 0,
            labelExpr: `(${literal(labels)})[datum.value]`,
            labelOverlap: false,
            labelLineHeight: 15,
          },
        },
        y: {
          field: "s",
          type: "nominal",
          scale: { domain: data.series, paddingInner: 0.08 },
          axis: {
            grid: false,
            labelColor: "var(--ink)",
            labelLimit: Math.min(230, width * 0.36),
            labelExpr: `(${literal(Object.fromEntries(data.series.map((name) => [name, valueText(card.by[1], name)])))})[datum.value]`,
          },
        },
        opacity: {
          field: "v",
          type: "quantitative",
          scale: { domain: least < greatest ? [least, greatest] : [0, greatest || 1], range: [0.1, 1] },
          legend: null,
        },
        tooltip: [
          { field: "s", title: heading(card.by[1]) },
          { field: "label", title: heading(data.axis) },
          { field: "value", title: card.figures[0].label },
        ],
      },
    },
  ];
  const entries = [
    [
      "ramp",
      `background:linear-gradient(90deg, color-mix(in srgb, ${color(0)} 10%, transparent), ${color(0)})`,
      `${shown(least, format)} to ${shown(greatest, format)} ${card.figures[0].label.toLowerCase()}`,
    ],
  ];
  // The numbers stand in the cells where they have room there.
  if ((width - 130) / xs.length > digits * 6.4 + 4)
    layer.push({
      mark: { type: "text", fontSize: 11 },
      encoding: {
        x: layer[0].encoding.x,
        y: layer[0].encoding.y,
        text: { field: "text" },
        color: { condition: { test: "datum.isDark", value: "var(--card)" }, value: "var(--ink)" },
      },
    });
  return {
    draw: (height) => ({ data: { values }, layer, width, height: Math.min(height, data.series.length * 44 + 40) }),
    entries,
  };
}

function pie(card, data, width) {
  const format = card.figures[0].format;
  const total = data.points.reduce((sum, point) => sum + (point.v || 0), 0);
  const share = (value) => `${grouped((100 * value) / total, 1)}${THIN}%`;
  // A pie is broken down by what stands on its axis; its colours follow that.
  const values = data.points.map((point, place) => ({
    ...point,
    place,
    label: point.x === null ? "(none)" : point.x,
    value: shown(point.v, format),
    share: share(point.v),
  }));
  const layer = (side) => [
    {
      mark: { type: "arc", innerRadius: side * 0.31, outerRadius: side * 0.49, stroke: "var(--card)", strokeWidth: 2 },
      encoding: {
        theta: { field: "v", type: "quantitative", stack: true },
        order: { field: "place", type: "quantitative" },
        color: {
          field: "place",
          type: "ordinal",
          scale: { domain: values.map((value) => value.place), range: values.map((value) => color(value.place)) },
          legend: null,
        },
        tooltip: [
          { field: "label", title: heading(data.axis) },
          {
            field: "value",
            title: card.figures.length === 1 ? card.figures[0].label : named(card.result[card.result.length - 1]),
          },
          { field: "share", title: "Share" },
        ],
      },
    },
  ];
  const entries = values.map((value) => [
    "",
    `background:${color(value.place)}`,
    value.label,
    make("b", {}, value.share),
    make("span", {}, format === "money" ? big(value.v, format) : value.value),
  ]);
  const draw = (height) => {
    const side = Math.min(width, height, 230);
    return { data: { values }, layer: layer(side), width: side, height: side };
  };
  return { draw, entries };
}
