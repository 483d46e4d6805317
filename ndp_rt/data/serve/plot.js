// Draws the page's plots as SVG. Colours and line styles are the style sheet's.

const SHOWN_COUNT = 500;
const LEFT = 46, RIGHT = 14, TOP = 12, BOTTOM = 24;

export function make(name, attributes = {}, text = null) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  return element;
}

export function showTime(ms) {
  return new Date(ms).toLocaleTimeString("en-GB");
}

export function showScore(value) {
  if (value === null || value === undefined) return "none";
  return Math.abs(value) < 10 ? value.toFixed(4) : value.toPrecision(5);
}

function chooseTicks(top) {
  let step = 10 ** Math.floor(Math.log10(top));
  while (top / step < 3) step /= 2;
  const found = [];
  for (let value = 0; value <= top * 1.0001; value += step) found.push(value);
  return found;
}

function open(svg) {
  const width = Math.max(svg.clientWidth, 200), height = svg.clientHeight || 200;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  return { width, height, right: width - RIGHT, bottom: height - BOTTOM };
}

function findTop(values) {
  return Math.max(...values.filter((value) => value !== null), 1e-6) * 1.08;
}

// Rows are [number, ms since 1970, score, threshold, is a defect, latency]; what is returned finds a row by its place.
export function drawScores(svg, allRows) {
  const rows = allRows.slice(-SHOWN_COUNT);
  const { right, bottom } = open(svg);
  if (!rows.length) {
    svg.setAttribute("aria-label", "no scores yet");
    return () => null;
  }
  const low = Math.min(0, ...rows.map((row) => row[2] ?? 0));
  const top = findTop(rows.flatMap((row) => [row[2], row[3]]));
  const placeX = (index) => LEFT + (rows.length > 1 ? (right - LEFT - 8) * index / (rows.length - 1) + 4 : (right - LEFT) / 2);
  const placeY = (value) => bottom - (bottom - TOP) * (value - low) / (top - low);
  for (const tick of chooseTicks(top)) {
    const y = placeY(tick);
    if (y < TOP - 1) continue;
    svg.append(make("path", { class: "axis", d: `M${LEFT} ${y}H${right}` }));
    svg.append(make("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, String(Number(tick.toPrecision(3)))));
  }
  const labelCount = Math.max(1, Math.min(rows.length, Math.floor((right - LEFT) / 130)));
  for (let index = 0; index < labelCount; index++) {
    const row = labelCount > 1 ? Math.round(index * (rows.length - 1) / (labelCount - 1)) : rows.length - 1;
    const anchor = labelCount === 1 || index === labelCount - 1 ? "end" : index === 0 ? "start" : "middle";
    svg.append(make("text", { x: placeX(row), y: bottom + 18, "text-anchor": anchor }, showTime(rows[row][1])));
  }
  let dots = "", crosses = "", line = "";
  rows.forEach(([, , score, threshold, isDefect], index) => {
    const x = placeX(index).toFixed(1);
    if (score !== null) {
      const y = placeY(score);
      if (isDefect) crosses += `M${+x - 3.5} ${y - 3.5}l7 7m0 -7l-7 7`;
      else dots += `M${x} ${y.toFixed(1)}h0`;
    }
    if (threshold !== null) line += `${line ? "L" : "M"}${x} ${placeY(threshold).toFixed(1)}`;
  });
  svg.append(make("path", { class: "dots", d: dots }));
  if (line) svg.append(make("path", { class: "threshold", d: rows.length > 1 ? line : `M${LEFT} ${line.split(" ")[1]}H${right}` }));
  svg.append(make("path", { class: "crosses", d: crosses }));
  const cursor = svg.appendChild(make("path", { class: "cursor", d: "" }));
  const defects = rows.filter((row) => row[4]).length, last = rows.at(-1);
  svg.setAttribute("aria-label", `scores of the last ${rows.length} images, ${defects} of them rejected; the last is ` +
    `${showScore(last[2])}, the threshold ${showScore(last[3])}. A table follows.`);
  return (x) => {
    if (x === null) { cursor.setAttribute("d", ""); return null; }
    const share = (x - LEFT - 4) / Math.max(right - LEFT - 8, 1);
    const index = Math.min(rows.length - 1, Math.max(0, Math.round(share * (rows.length - 1))));
    cursor.setAttribute("d", `M${placeX(index)} ${TOP}V${bottom}`);
    return rows[index];
  };
}

export function drawHistogram(svg, base, last, threshold) {
  const { right, bottom } = open(svg), left = 8;
  if (!last.length) {
    svg.setAttribute("aria-label", "no scores yet");
    return;
  }
  const low = Math.min(0, ...last, ...base), top = findTop([...last, ...base, threshold]), count = 26;
  const bins = (values) => {
    const found = new Array(count).fill(0);
    for (const value of values) found[Math.min(count - 1, Math.floor((value - low) / (top - low) * count))] += 1 / values.length;
    return found;
  };
  const lastBins = bins(last), baseBins = base.length ? bins(base) : [];
  const most = Math.max(...lastBins, ...baseBins), width = (right - left) / count;
  const placeX = (value) => left + (right - left) * (value - low) / (top - low);
  const placeY = (share) => bottom - (bottom - TOP - 8) * Math.sqrt(share / most);
  lastBins.forEach((share, index) => {
    if (share) svg.append(make("rect", { class: "bars", x: left + index * width + 1, y: placeY(share), width: width - 2, height: bottom - placeY(share), rx: 1.5 }));
  });
  if (baseBins.length) {
    let d = `M${left} ${bottom}`;
    baseBins.forEach((share, index) => { d += `L${left + index * width} ${placeY(share)}H${left + (index + 1) * width}`; });
    svg.append(make("path", { class: "steps", d: `${d}V${bottom}` }));
  }
  svg.append(make("path", { class: "axis", d: `M${left} ${bottom}H${right}` }));
  for (const tick of chooseTicks(top)) {
    if (placeX(tick) < right - 8) svg.append(make("text", { x: placeX(tick), y: bottom + 16, "text-anchor": tick ? "middle" : "start" }, String(Number(tick.toPrecision(3)))));
  }
  if (threshold !== null) svg.append(make("path", { class: "threshold", d: `M${placeX(threshold)} ${TOP - 6}V${bottom}` }));
  svg.setAttribute("aria-label", `distribution of the last ${last.length} scores` + (base.length ? ` beside that of ${base.length} others` : ""));
}

// Two pointers on a scale from black to white.
export function drawBrightness(svg, base, last, baseName) {
  const { right, width } = open(svg), left = 8, y = 34, height = 14;
  if (last === null) {
    svg.setAttribute("aria-label", "no brightness yet");
    return;
  }
  const shade = svg.appendChild(make("linearGradient", { id: "shade" }));
  shade.append(make("stop", { offset: 0, "stop-color": "#000" }), make("stop", { offset: 1, "stop-color": "#fff" }));
  svg.append(make("rect", { class: "track", x: left, y, width: right - left, height, rx: 4, fill: "url(#shade)" }));
  const point = (value, isBase) => {
    const x = left + (right - left) * Math.min(1, Math.max(0, value));
    const side = isBase ? [y - 2, -7, y - 15] : [y + height + 2, 7, y + height + 24];
    svg.append(make("path", { class: isBase ? "pointer base" : "pointer", d: `M${x} ${side[0]}l-5 ${side[1]}h10z` }));
    const anchor = x < 90 ? "start" : x > width - 90 ? "end" : "middle";
    svg.append(make("text", { x: Math.min(Math.max(x, left), right), y: side[2], "text-anchor": anchor, class: isBase ? "" : "strong" }, `${isBase ? baseName : "now"} ${value.toFixed(3)}`));
  };
  if (base !== null) point(base, true);
  point(last, false);
  svg.setAttribute("aria-label", `brightness now ${last.toFixed(3)}` + (base === null ? "" : `, ${baseName} ${base.toFixed(3)}`) + " of white");
}
