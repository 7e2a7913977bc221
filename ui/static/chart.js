// The curves of a run, and of others over it, on a canvas; values under the pointer or the arrow keys.
// props.value = {project, runs: [{id, number, title, stamp}], total, figures: [[name, words, unit]], label}: who is shown
// and how far each is. The points are asked for once a stamp changes: server.chart_points(project, ids, figure).
const $ = name => element.querySelector(name);
const canvas = $('canvas'), tip = $('.c-tip'), choice = $('select'), smooth = $('[name=smooth]'), log = $('[name=log]');
const PAD = {left: 48, right: 12, top: 10, bottom: 24};
const DASHES = [[8, 4], [2, 3], [10, 3, 2, 3], [14, 5]];  // of the runs beside the first; colours --c-1 to --c-4
const known = new Map();  // 'run figure' -> {stamp, curves: {metric: [[step, value]]}}
let at = null, box = null;

const color = name => getComputedStyle(element).getPropertyValue(name).trim();
const data = () => props.value ?? {runs: [], figures: [], total: 0};
const key = run => `${run.id} ${choice.value || 'loss'}`;

function format(value) {
  if (choice.value === 'memory_bytes') return `${(value / 2 ** 30).toFixed(2)} GB`;
  if (choice.value.endsWith('loss')) return value.toFixed(3);
  return Math.abs(value) >= 1e-3 && Math.abs(value) < 1e5 || !value ? String(+value.toPrecision(4)) : value.toExponential(2);
}

// What is drawn: {name, end, points, stroke, thick, dash, dots}. A run beside the first is told by dashes and its number.
function lines() {
  const found = [], {runs} = data(), both = choice.value === 'loss' || !choice.value;
  runs.forEach((run, i) => {
    const curves = known.get(key(run))?.curves;
    if (!curves) return;
    const trained = curves.loss ?? [], heldout = curves.heldout_loss ?? [];
    const one = both ? (heldout.length ? heldout : trained) : choice.value === 'train_loss' ? trained : Object.values(curves)[0] ?? [];
    const of = runs.length > 1 ? `${run.title}, ` : '';
    if (i) found.push({name: `${run.title}${both ? heldout.length ? ', held out' : ', trained' : ''}`, end: run.number, points: one, stroke: color(`--c-${i}`), thick: 1.5, dash: DASHES[i - 1]});
    else if (both) {
      found.push({name: `${of}trained`, end: '', points: trained, stroke: color('--ft-before'), thick: 1});
      found.push({name: `${of}held out`, end: run.number, points: heldout, stroke: color('--color-accent'), thick: 2, dots: true});
    } else found.push({name: run.title, end: run.number, points: one, stroke: color('--color-accent'), thick: 1.5});
  });
  return found.filter(line => line.points.length);
}

// Exponential moving average that does not begin at zero; only curves of many points need one.
function smoothed(points) {
  const weight = smooth.value / 100;
  if (!weight || points.length < 12) return null;
  let sum = 0, share = 0;
  return points.map(([step, value]) => {
    sum = weight * sum + (1 - weight) * value;
    share = weight * share + (1 - weight);
    return [step, sum / share];
  });
}

function ticks(low, high, count) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= raw);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6; v += step) found.push(v);
  return found;
}

function logTicks(low, high) {
  const found = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++)
    for (const m of [1, 2, 5]) if (m * 10 ** e >= low && m * 10 ** e <= high) found.push(m * 10 ** e);
  return found.length > 1 ? found.filter((_, i) => found.length < 8 || i % Math.ceil(found.length / 6) === 0) : ticks(low, high, 4);
}

// Draws on any context, so that the picture which is saved is the one that is seen. Returns where things are.
function paint(c, width, height, shown, top = PAD.top) {
  c.font = `12px ${getComputedStyle(element).fontFamily}`;
  const named = shown.filter(line => line.end);
  const many = new Set(named.map(line => line.end)).size > 1;
  const right = many ? 14 + Math.max(...named.map(line => c.measureText(line.end).width)) : PAD.right;
  const above = log.checked ? line => line.points.filter(p => p[1] > 0) : line => line.points;
  const all = shown.flatMap(above);
  if (!all.length) return null;
  const last = Math.max(data().total || 0, ...all.map(p => p[0]), 1), values = all.map(p => p[1]);
  let low = Math.min(...values), high = Math.max(...values);
  if (log.checked) { low /= 1.1; high *= 1.1; } else {
    const room = (high - low) * 0.08 || Math.abs(high) * 0.1 || 0.5;
    low = low >= 0 ? Math.max(0, low - room) : low - room; high += room;
  }
  const scale = log.checked ? Math.log : v => v;
  const x = s => PAD.left + s / last * (width - PAD.left - right);
  const y = v => top + (scale(high) - scale(v)) / (scale(high) - scale(low)) * (height - top - PAD.bottom);
  c.strokeStyle = color('--border-color-primary'); c.fillStyle = color('--body-text-color-subdued'); c.lineWidth = 1;
  c.textAlign = 'right'; c.textBaseline = 'middle';
  const memory = choice.value === 'memory_bytes' ? 2 ** 30 : 1;
  for (const v of log.checked ? logTicks(low, high) : ticks(low / memory, high / memory, 4).map(v => v * memory)) {
    const line = Math.round(y(v)) + .5, words = v / memory;
    c.beginPath(); c.moveTo(PAD.left, line); c.lineTo(width - right, line); c.stroke();
    c.fillText(words && Math.abs(words) < 1e-3 ? words.toExponential(0) : +words.toPrecision(3), PAD.left - 8, line);
  }
  c.textAlign = 'center'; c.textBaseline = 'top';
  for (const s of ticks(0, last, Math.min(6, Math.floor(width / 80))).filter(Number.isInteger))
    c.fillText(s === 0 ? 'step 0' : s, Math.min(Math.max(x(s), PAD.left + (s === 0 ? 8 : 0)), width - right - c.measureText(s).width / 2), height - PAD.bottom + 8);
  const draw = (points, line, faint) => {
    c.strokeStyle = line.stroke; c.lineWidth = faint ? 1 : line.thick; c.globalAlpha = faint ? .3 : 1;
    c.lineJoin = 'round'; c.setLineDash(faint ? [] : line.dash ?? []); c.beginPath();
    points.forEach(([s, v], i) => i ? c.lineTo(x(s), y(v)) : c.moveTo(x(s), y(v)));
    c.stroke(); c.setLineDash([]); c.globalAlpha = 1;
  };
  const ends = [];
  for (const line of shown) {
    const points = above(line), calm = smoothed(points);
    if (!points.length) continue;
    if (calm) draw(points, line, true);
    draw(calm ?? points, calm ? {...line, thick: Math.max(line.thick, 1.5)} : line);
    c.fillStyle = line.stroke;
    if (line.dots && points.length < 60 || points.length === 1)
      for (const [s, v] of points) { c.beginPath(); c.arc(x(s), y(v), 3, 0, 7); c.fill(); }
    if (many && line.end) ends.push({line, x: x(points.at(-1)[0]), y: y((calm ?? points).at(-1)[1])});
  }
  c.textAlign = 'left'; c.textBaseline = 'middle';
  ends.sort((a, b) => a.y - b.y);
  ends.forEach((end, i) => { if (i) end.y = Math.max(end.y, ends[i - 1].y + 14); });
  for (const end of ends) { c.fillStyle = end.line.stroke; c.fillText(end.line.end, end.x + 6, end.y); }
  return {x, y, last, width, height, right, top};
}

function draw() {
  const width = canvas.clientWidth, height = canvas.clientHeight, ratio = devicePixelRatio || 1;
  const shown = lines(), told = data(), both = choice.value === 'loss' || !choice.value;
  const first = told.runs.length ? known.get(key(told.runs[0]))?.curves : null;
  if (both) {
    element.dataset.points = (first?.loss?.length ?? 0) + (first?.heldout_loss?.length ?? 0);
    element.dataset.lastStep = first?.loss?.at(-1)?.[0] ?? '';
  }
  const zeros = log.checked && shown.some(line => line.points.some(p => p[1] <= 0));
  const words = told.figures.find(f => f[0] === (choice.value || 'loss'));
  $('.c-unit').textContent = `${words?.[2] ?? ''}${zeros ? '; zeros are not on a log scale' : ''}`;
  $('.c-none').hidden = shown.length > 0;
  $('figcaption').hidden = !told.runs.length;
  $('.c-tools').hidden = !element.dataset.points || element.dataset.points === '0';
  canvas.setAttribute('aria-label', both && told.label || (shown.length ? `${words?.[1]}: ${shown.map(said).join('; ')}` : 'Loss curve, empty so far'));
  legend(shown);
  if (!width) return;
  canvas.width = width * ratio; canvas.height = height * ratio;
  const c = canvas.getContext('2d');
  c.scale(ratio, ratio);
  box = paint(c, width, height, shown);
  if (at !== null && box) hover(c, shown);
  else tip.hidden = true;
}

const said = line => `${line.name} ${format(line.points.at(-1)[1])} at step ${line.points.at(-1)[0]}`;

function legend(shown) {
  const make = (name, more) => {
    const node = document.createElementNS('http://www.w3.org/2000/svg', name);
    for (const [k, v] of Object.entries(more)) node.setAttribute(k, v);
    return node;
  };
  $('.c-legend').replaceChildren(...shown.map(line => {
    const entry = document.createElement('span'), swatch = make('svg', {width: 28, height: 8, 'aria-hidden': true});
    swatch.append(make('line', {x1: 0, x2: 28, y1: 4, y2: 4, stroke: line.stroke, 'stroke-width': line.thick, 'stroke-dasharray': (line.dash ?? []).join(' ')}));
    entry.append(swatch, line.name);
    return entry;
  }));
}

const nearest = (points, step) => points.reduce((a, b) => Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a);

function hover(c, shown) {
  const step = nearest(shown[0].points, at)[0];
  c.strokeStyle = color('--body-text-color-subdued'); c.lineWidth = 1; c.beginPath();
  c.moveTo(Math.round(box.x(step)) + .5, box.top); c.lineTo(Math.round(box.x(step)) + .5, box.height - PAD.bottom); c.stroke();
  const words = shown.map(line => {
    const [s, v] = nearest(line.points, step);
    return `${line.name} ${format(v)}${s === step ? '' : ` (step ${s})`}`;
  });
  tip.replaceChildren(...(shown.length > 2 ? [`step ${step}`, ...words] : [[`step ${step}`, ...words].join(' · ')]).map(text => {
    const row = document.createElement('div');
    row.textContent = text;
    return row;
  }));
  tip.hidden = false;
  tip.style.left = `${Math.min(Math.max(0, box.x(step) - tip.offsetWidth / 2), box.width - tip.offsetWidth)}px`;
}

canvas.addEventListener('pointermove', e => { if (box) { at = (e.offsetX - PAD.left) / (box.width - PAD.left - box.right) * box.last; draw(); } });
canvas.addEventListener('pointerleave', () => { at = null; draw(); });
canvas.addEventListener('keydown', e => {
  const steps = lines()[0]?.points;
  if (!steps || !['ArrowLeft', 'ArrowRight', 'Home', 'End'].includes(e.key)) return;
  e.preventDefault();
  const here = steps.indexOf(nearest(steps, at ?? steps.at(-1)[0]));
  const next = {ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: steps.length - 1}[e.key];
  at = steps[Math.max(0, Math.min(steps.length - 1, next))][0];
  draw();
  $('[role=status]').textContent = [...tip.children].map(row => row.textContent).join(', ');
});
canvas.addEventListener('blur', () => { at = null; draw(); });

// What stands in the tools stays while values come and go.
smooth.addEventListener('input', () => { smooth.nextElementSibling.textContent = `${smooth.value} %`; draw(); });
log.addEventListener('change', draw);
choice.addEventListener('change', take);

element.addEventListener('click', async e => {
  const kind = e.target.closest('[data-save]')?.dataset.save, told = data();
  if (kind === 'png') picture().toBlob(blob => keep(blob, 'curves.png'));
  if (kind === 'csv') {
    const answer = await server.chart_table(told.project, told.runs.map(run => run.id));
    if (answer.error) $('.c-unit').textContent = answer.error;
    else keep(new Blob([answer.text], {type: 'text/csv'}), 'curves.csv');
  }
});

function picture() {
  const found = document.createElement('canvas'), c = found.getContext('2d'), shown = lines();
  const words = data().figures.find(f => f[0] === (choice.value || 'loss'));
  found.width = 1600; found.height = 800 + 40 * shown.length;
  c.scale(2, 2);
  c.fillStyle = color('--background-fill-primary'); c.fillRect(0, 0, 800, found.height / 2);
  c.font = `12px ${getComputedStyle(element).fontFamily}`; c.textBaseline = 'middle';
  c.fillStyle = color('--body-text-color'); c.fillText(`${words[1]}${words[2] ? ` · ${words[2]}` : ''}`, 12, 20);
  shown.forEach((line, i) => {
    c.strokeStyle = line.stroke; c.lineWidth = line.thick; c.setLineDash(line.dash ?? []);
    c.beginPath(); c.moveTo(12, 40 + 20 * i); c.lineTo(40, 40 + 20 * i); c.stroke();
    c.fillStyle = color('--body-text-color'); c.fillText(line.name, 48, 40 + 20 * i);
  });
  c.setLineDash([]);
  paint(c, 800, found.height / 2, shown, 48 + 20 * shown.length);
  return found;
}

function keep(blob, name) {
  const link = Object.assign(document.createElement('a'), {href: URL.createObjectURL(blob), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function offer(figures) {
  if (choice.options.length === figures.length) return;
  const was = choice.value;
  choice.replaceChildren(...figures.map(([name, words]) => new Option(words, name)));
  if (figures.some(f => f[0] === was)) choice.value = was;
}

async function take() {
  const told = data();
  offer(told.figures);
  const figure = choice.value || 'loss';
  for (const name of known.keys()) if (!told.runs.some(run => name.startsWith(`${run.id} `))) known.delete(name);
  const stale = told.runs.filter(run => known.get(key(run))?.stamp !== run.stamp).map(run => run.id);
  draw();
  if (!stale.length) return;
  let answer;
  try { answer = await server.chart_points(told.project, stale, figure); } catch { return; }  // the next change asks again
  for (const [id, found] of Object.entries(answer.runs ?? {})) {
    const name = `${id} ${figure}`;
    if ((known.get(name)?.stamp ?? 0) <= found.stamp) known.set(name, found);
  }
  draw();
}
watch('value', take);
new ResizeObserver(draw).observe(canvas);
new MutationObserver(draw).observe(document.body, {attributes: true, attributeFilter: ['class']});
take();
