'use strict';

// The plot: one line for each comparison, how many times better brood is than stock on a
// logarithmic axis, the spread of the pairs, and where the limit is. An SVG without any script, in
// light or dark as the reader's system is. Pure.

const { amount } = require('./format');

const WIDTH = 1040;
const LINE = 24;
const TOP = 104;
const BOTTOM = 40;
const LEFT = 460;
const RIGHT = 100;

const STYLE = `
  svg { color-scheme: light dark; }
  text { font: 13px system-ui, sans-serif; fill: #1f2328; }
  .back { fill: #ffffff; }
  .title { font-size: 17px; font-weight: 600; }
  .quiet { fill: #59636e; }
  .grid { stroke: #d1d9e0; }
  .one { stroke: #59636e; stroke-width: 1.5; }
  .spread { stroke-width: 3; stroke-linecap: round; opacity: 0.45; }
  .limit { stroke: #1f2328; stroke-width: 2; }
  .ahead { fill: #0969da; stroke: #0969da; }
  .even { fill: #768390; stroke: #768390; }
  .behind { fill: #bc4c00; stroke: #bc4c00; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .back { fill: #0d1117; }
    .quiet { fill: #9198a1; }
    .grid { stroke: #30363d; }
    .one { stroke: #9198a1; }
    .limit { stroke: #e6edf3; }
    .ahead { fill: #58a6ff; stroke: #58a6ff; }
    .even { fill: #9198a1; stroke: #9198a1; }
    .behind { fill: #f0883e; stroke: #f0883e; }
  }`;

function plot(results, sentence) {
  const lines = results.map(lineOf);
  const axis = axisFor(lines);
  const height = TOP + lines.length * LINE + BOTTOM;
  const bottom = height - BOTTOM;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" role="img">`,
    `<title>brood against stock Node, row by row</title>`,
    `<style>${STYLE}\n</style>`,
    `<rect class="back" width="${WIDTH}" height="${height}"/>`,
    text(20, 30, 'How many times better than stock Node', 'title'),
    text(20, 52, sentence, 'quiet'),
    ...legend(),
    ...axis.ticks.flatMap((tick) => gridLine(axis, tick, bottom)),
    ...lines.flatMap((line, i) => draw(line, axis, TOP + i * LINE + LINE / 2)),
    text(axis.x(1), height - 4, 'worse \u2190 stock \u2192 better', 'quiet', 'middle'),
    '</svg>\n',
  ].join('\n');
}

/** What is drawn of a result; factors above 1 are better than stock. */
function lineOf(result) {
  const line = { id: result.id, work: result.work };
  if (result.failed) return { ...line, missing: 'failed' };
  const factor = (ratio) => (result.better === 'more' ? ratio : 1 / ratio);
  const points = [result.ratio, ...result.spread].map(factor);
  if (!points.every((point) => Number.isFinite(point) && point > 0)) {
    return { ...line, missing: 'no ratio' };
  }
  const [median, ...spread] = points;
  // The limit is known as brood's part of it; seen from stock it is that much further.
  const limit = result.limit && median / factor(result.limit.ratio);
  return {
    ...line,
    median,
    spread: spread.sort((a, b) => a - b),
    limit: Number.isFinite(limit) && limit > 0 ? limit : undefined,
    verdict: result.verdict,
  };
}

/** A logarithmic axis that holds all lines, and at least a half to double. */
function axisFor(lines) {
  const points = lines.flatMap((line) => [line.median, line.limit, ...(line.spread ?? [])]);
  const known = points.filter((point) => point !== undefined);
  const low = Math.log10(Math.min(0.5, ...known)) - 0.05;
  const high = Math.log10(Math.max(2, ...known)) + 0.05;
  const x = (factor) => LEFT + ((Math.log10(factor) - low) / (high - low)) * (WIDTH - LEFT - RIGHT);
  const steps = high - low > 4 ? [1] : [1, 2, 5];
  const ticks = [];
  for (let decade = Math.floor(low); decade <= high; decade++) {
    for (const step of steps) {
      const exponent = decade + Math.log10(step);
      if (exponent >= low && exponent <= high) ticks.push(Number(`${step}e${decade}`));
    }
  }
  return { x, ticks };
}

function gridLine(axis, tick, bottom) {
  const x = axis.x(tick);
  const label = tick >= 1 ? String(tick) : `1/${Math.round(1 / tick)}`;
  return [
    vertical(x, TOP - 6, bottom + 4, tick === 1 ? 'one' : 'grid'),
    text(x, TOP - 12, label, 'quiet', 'middle'),
  ];
}

function draw(line, axis, y) {
  const label = [text(20, y + 4, line.id), text(64, y + 4, shorten(line.work, 58))];
  if (line.missing) return [...label, text(axis.x(1) + 8, y + 4, line.missing, 'quiet')];
  const [low, high] = line.spread.map(axis.x);
  return [
    ...label,
    `<line class="spread ${line.verdict}" x1="${fixed(low)}" x2="${fixed(high)}" y1="${y}" y2="${y}"/>`,
    ...(line.limit ? [vertical(axis.x(line.limit), y - 8, y + 8, 'limit')] : []),
    `<circle class="${line.verdict}" cx="${fixed(axis.x(line.median))}" cy="${y}" r="5"/>`,
    text(WIDTH - 20, y + 4, `${amount(line.median)}x`, '', 'end'),
  ];
}

function legend() {
  const y = 74;
  const dots = ['ahead', 'even', 'behind'].flatMap((verdict, i) => [
    `<circle class="${verdict}" cx="${26 + i * 80}" cy="${y - 4}" r="5"/>`,
    text(38 + i * 80, y, verdict),
  ]);
  return [...dots, vertical(270, y - 12, y + 4, 'limit'), text(280, y, 'limit, see the table')];
}

function text(x, y, words, style = '', anchor = 'start') {
  const kind = style ? ` class="${style}"` : '';
  return `<text x="${fixed(x)}" y="${y}"${kind} text-anchor="${anchor}">${escaped(words)}</text>`;
}

function vertical(x, y1, y2, style) {
  return `<line class="${style}" x1="${fixed(x)}" x2="${fixed(x)}" y1="${y1}" y2="${y2}"/>`;
}

function fixed(number) {
  return Number(number.toFixed(1));
}

function shorten(words, length) {
  return words.length > length ? `${words.slice(0, length - 1)}\u2026` : words;
}

function escaped(words) {
  return words.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

module.exports = { plot };
