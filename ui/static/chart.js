// The loss curve on a canvas: trained (thin), held out (accent), values under the pointer or the arrow keys.
// props.value = {train: [[step, loss]], heldout: [[step, loss]], total, label, other: {name, train, heldout} | null}
const canvas = element.querySelector('canvas'), tip = element.querySelector('.c-tip');
const PAD = {left: 40, right: 12, top: 8, bottom: 24};
let at = null, box = null;

const color = name => getComputedStyle(element).getPropertyValue(name).trim();
const data = () => props.value ?? {train: [], heldout: [], total: 0};

function ticks(low, high, count) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= raw);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + 1e-9; v += step) found.push(v);
  return found;
}

function draw() {
  const {train, heldout, total, other} = data();
  const width = canvas.clientWidth, height = canvas.clientHeight, ratio = devicePixelRatio || 1;
  if (!width) return;
  canvas.width = width * ratio; canvas.height = height * ratio;
  const c = canvas.getContext('2d');
  c.scale(ratio, ratio);
  c.font = `12px ${getComputedStyle(element).fontFamily}`;
  const all = [...train, ...heldout, ...(other?.heldout ?? []), ...(other?.train ?? [])];
  const last = Math.max(total || 0, ...all.map(p => p[0]), 1);
  const values = all.map(p => p[1]);
  let low = values.length ? Math.min(...values) : 0, high = values.length ? Math.max(...values) : 4;
  const room = (high - low) * 0.08 || 0.5;
  low = Math.max(0, low - room); high += room;
  box = {x: s => PAD.left + s / last * (width - PAD.left - PAD.right),
    y: v => PAD.top + (high - v) / (high - low) * (height - PAD.top - PAD.bottom), last, width, height};
  if (!all.length) { tip.hidden = true; return; }
  c.strokeStyle = color('--border-color-primary'); c.fillStyle = color('--body-text-color-subdued'); c.lineWidth = 1;
  c.textAlign = 'right'; c.textBaseline = 'middle';
  for (const v of ticks(low, high, 4)) {
    const y = Math.round(box.y(v)) + .5;
    c.beginPath(); c.moveTo(PAD.left, y); c.lineTo(width - PAD.right, y); c.stroke();
    c.fillText(+v.toFixed(2), PAD.left - 8, y);
  }
  c.textAlign = 'center'; c.textBaseline = 'top';
  const marks = ticks(0, last, Math.min(6, Math.floor(width / 80))).filter(s => Number.isInteger(s));
  for (const s of marks) c.fillText(s === 0 ? 'step 0' : s, Math.min(Math.max(box.x(s), PAD.left + (s === 0 ? 8 : 0)), width - c.measureText(s).width / 2), height - PAD.bottom + 8);
  const line = (points, stroke, thick, dash = []) => {
    if (!points.length) return;
    c.strokeStyle = stroke; c.lineWidth = thick; c.lineJoin = 'round'; c.setLineDash(dash); c.beginPath();
    points.forEach(([s, v], i) => i ? c.lineTo(box.x(s), box.y(v)) : c.moveTo(box.x(s), box.y(v)));
    c.stroke(); c.setLineDash([]);
  };
  const dots = (points, fill) => points.forEach(([s, v]) => { c.fillStyle = fill; c.beginPath(); c.arc(box.x(s), box.y(v), 3, 0, 7); c.fill(); });
  const grey = color('--ft-before'), accent = color('--color-accent');
  if (other) { line(other.heldout, accent, 1.5, [4, 4]); }
  line(train, grey, 1);
  line(heldout, accent, 2);
  dots(heldout, accent);
  if (at !== null && all.length) hover(c, train, heldout, other);
  else tip.hidden = true;
}

const nearest = (points, step) => points.length ? points.reduce((a, b) => Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a) : null;

function hover(c, train, heldout, other) {
  const t = nearest(train, at), h = nearest(heldout, at), o = other && nearest(other.heldout, at);
  const step = (t ?? h)[0];
  c.strokeStyle = color('--body-text-color-subdued'); c.lineWidth = 1; c.beginPath();
  c.moveTo(Math.round(box.x(step)) + .5, PAD.top); c.lineTo(Math.round(box.x(step)) + .5, box.height - PAD.bottom); c.stroke();
  const words = [`step ${step}`];
  if (t) words.push(`trained ${t[1].toFixed(2)}`);
  if (h) words.push(`held out ${h[1].toFixed(2)}${h[0] === step ? '' : ` (step ${h[0]})`}`);
  if (o) words.push(`${other.name} ${o[1].toFixed(2)}`);
  tip.textContent = words.join(' · ');
  tip.hidden = false;
  tip.style.left = `${Math.min(Math.max(0, box.x(step) - tip.offsetWidth / 2), box.width - tip.offsetWidth)}px`;
}

canvas.addEventListener('pointermove', e => { if (box) { at = (e.offsetX - PAD.left) / (box.width - PAD.left - PAD.right) * box.last; draw(); } });
canvas.addEventListener('pointerleave', () => { at = null; draw(); });
canvas.addEventListener('keydown', e => {
  const steps = data().train.length ? data().train : data().heldout;
  if (!steps.length || !['ArrowLeft', 'ArrowRight'].includes(e.key)) return;
  e.preventDefault();
  const here = steps.indexOf(nearest(steps, at ?? steps.at(-1)[0]));
  at = steps[Math.max(0, Math.min(steps.length - 1, here + (e.key === 'ArrowLeft' ? -1 : 1)))][0];
  draw();
});
canvas.addEventListener('blur', () => { at = null; draw(); });

function take() {
  const told = data();
  canvas.setAttribute('aria-label', told.label || 'Loss curve, empty so far');
  element.dataset.points = told.train.length + told.heldout.length;
  element.dataset.lastStep = told.train.length ? told.train.at(-1)[0] : '';
  element.querySelector('.c-none').hidden = told.train.length + told.heldout.length > 0;
  draw();
}
watch('value', take);
new ResizeObserver(draw).observe(canvas);
new MutationObserver(draw).observe(document.body, {attributes: true, attributeFilter: ['class']});
take();
