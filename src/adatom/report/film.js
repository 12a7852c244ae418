// The film of a move. Without this script the page shows the last frame and all decisions.
(() => {
  'use strict';
  const box = document.querySelector('.film');
  if (!box) return;
  const data = JSON.parse(document.getElementById('film-data').textContent);
  const svg = box.querySelector('svg'), canvas = box.querySelector('.trace');
  const shots = svg.querySelector('.shots'), over = svg.querySelector('.over');
  const seek = box.querySelector('.seek'), play = box.querySelector('.play');
  const list = box.querySelector('.decisions');
  const items = [...list.children];
  const speeds = [0.5, 1, 2, 5, 10, 20, 50];
  const BEAM = 0.42; // Å: width of a usual probe
  const FLASH_S = 0.6; // s of film: how long a jump glows
  let now = 0, speed = data.speed, last = null;
  box.classList.add('live');

  const make = (name, attributes, parent) => {
    const e = document.createElementNS(svg.namespaceURI, name);
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
    parent.append(e);
    return e;
  };
  const upto = (rows, t) => rows.filter((r) => r[0] <= t);
  const images = data.frames.map((f) => {
    const [x, y, width, height] = f.box;
    return make('image', { x, y, width, height, href: f.src, preserveAspectRatio: 'none' }, shots);
  });
  const scan = make('path', { class: 'scanline' }, shots);

  // The last point of the signal at or before a time; -1 if the beam is not parked then.
  const beamAt = (t) => {
    const times = data.signal.t;
    let low = 0, high = times.length;
    while (low < high) {
      const mid = (low + high) >> 1;
      if (times[mid] <= t + data.signal.step / 2) low = mid + 1; else high = mid;
    }
    return low > 0 && t - times[low - 1] < 4 * data.signal.step ? low - 1 : -1;
  };
  const jumps = () => data.decisions.filter((d) => d[1] === 'jump' || d[1] === 'knocked').map((d) => d[0]);

  const drawStage = () => {
    let shown = null, scanning = null;
    data.frames.forEach((f, i) => {
      const share = f.s > 0 ? Math.min(Math.max((now - f.t) / f.s, 0), 1) : Number(now >= f.t);
      images[i].style.display = share > 0 ? '' : 'none';
      images[i].style.clipPath = share < 1 ? `inset(0 0 ${100 - 100 * share}% 0)` : '';
      images[i].style.opacity = '';
      if (share >= 1) shown = i;
      if (share > 0 && share < 1) scanning = [f, share];
    });
    images.forEach((im, i) => { if (shown !== null && i < shown) im.style.opacity = 0.45; });
    scan.style.display = scanning ? '' : 'none';
    if (scanning) {
      const [x, y, w, h] = scanning[0].box;
      scan.setAttribute('d', `M${x} ${y + h * scanning[1]}h${w}`);
    }
    over.replaceChildren();
    if (shown !== null) {
      const f = data.frames[shown];
      if (shown > 0) {
        const [x, y, width, height] = f.box;
        make('rect', { x, y, width, height, class: 'scanned' }, over);
      }
      f.xy.forEach(([cx, cy], k) => {
        const circle = make('circle', { cx, cy, r: 0.32, class: 'atom' }, over);
        circle.style.stroke = data.elements[f.e[k]][1];
      });
    }
    const way = upto(data.ways, now).pop();
    if (way) {
      make('path', { d: 'M' + way[1].map((p) => p.join(' ')).join('L'), class: 'route' }, over);
      const [cx, cy] = way[1][way[1].length - 1];
      make('circle', { cx, cy, r: 0.85, class: 'goal' }, over);
    }
    const atoms = new Map();
    upto(data.places, now).forEach(([t, n, x, y]) => atoms.set(n, [t, x, y]));
    atoms.forEach(([t, cx, cy]) => {
      const age = (now - t) / speed;
      if (t > 0 && age < FLASH_S && jumps().some((j) => Math.abs(j - t) < 1e-2)) {
        const glow = make('circle', { cx, cy, r: 0.7 + 1.6 * age / FLASH_S, class: 'flash' }, over);
        glow.style.opacity = 1 - age / FLASH_S;
      }
      make('circle', { cx, cy, r: 0.6, class: 'here' }, over);
    });
    const k = scanning ? -1 : beamAt(now);
    if (k >= 0) {
      const cx = data.signal.x[k], cy = data.signal.y[k];
      make('circle', { cx, cy, r: BEAM, class: 'beam' }, over);
      make('circle', { cx, cy, r: 0.12, class: 'core' }, over);
    }
    box.querySelector('.now').textContent = scanning ? 'scans a frame' : k >= 0 ? 'beam parked' : '';
  };

  const drawTrace = () => {
    const ratio = window.devicePixelRatio || 1, wide = canvas.clientWidth, tall = canvas.clientHeight;
    if (!wide) return;
    canvas.width = wide * ratio;
    canvas.height = tall * ratio;
    const c = canvas.getContext('2d'), style = getComputedStyle(box);
    c.scale(ratio, ratio);
    c.font = '12px ' + style.fontFamily;
    const left = 42, right = 10, top = 8, bottom = 34, w = wide - left - right, h = tall - top - bottom;
    const x = (t) => left + w * t / data.seconds;
    const counts = data.signal.c, most = 1.08 * Math.max(1, ...counts);
    const y = (v) => top + h - h * v / most;
    const muted = '#5b6673', ink = '#1d2530';
    c.fillStyle = '#eef1f4'; // times in which a frame was scanned
    data.frames.forEach((f) => c.fillRect(x(f.t), top, Math.max(x(f.t + f.s) - x(f.t), 1), h));
    const nice = (span, n) => {
      const raw = span / n, power = 10 ** Math.floor(Math.log10(raw));
      return [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
    };
    c.fillStyle = muted;
    c.strokeStyle = '#d5dbe2';
    c.lineWidth = 1;
    c.textAlign = 'center';
    const dt = nice(data.seconds, Math.max(2, w / 90));
    for (let t = 0; t <= data.seconds + 1e-9; t += dt) {
      c.fillText(String(+t.toPrecision(6)), x(t), tall - 19);
    }
    c.fillText('time (s)', left + w / 2, tall - 4);
    c.textAlign = 'right';
    const dv = nice(most, 4);
    for (let v = 0; v < most; v += dv) {
      c.fillText(String(+v.toPrecision(6)), left - 6, y(v) + 4);
      c.beginPath(); c.moveTo(left, y(v)); c.lineTo(left + w, y(v)); c.stroke();
    }
    if (!counts.length) {
      c.textAlign = 'center';
      c.fillText('this instrument gives no signal of a parked beam', left + w / 2, top + h / 2);
    }
    c.strokeStyle = '#D55E00';
    c.lineWidth = 1.5;
    jumps().filter((t) => t <= now).forEach((t) => {
      c.beginPath(); c.moveTo(x(t), top); c.lineTo(x(t), top + h); c.stroke();
    });
    const draw = (colour, until) => {
      c.strokeStyle = colour;
      c.lineWidth = 1;
      c.beginPath();
      let before = -1e9;
      for (let i = 0; i < counts.length && data.signal.t[i] <= until; i++) {
        const t = data.signal.t[i], gap = t - before > 4 * data.signal.step;
        if (gap) c.moveTo(x(t), y(counts[i])); else c.lineTo(x(t), y(counts[i]));
        before = t;
      }
      c.stroke();
    };
    draw('#d5dbe2', Infinity);
    draw(ink, now);
    c.strokeStyle = '#0072b2';
    c.lineWidth = 2;
    c.beginPath(); c.moveTo(x(now), top - 4); c.lineTo(x(now), top + h); c.stroke();
  };

  const drawList = () => {
    const at = upto(data.decisions, now + 1e-9).length - 1;
    items.forEach((li, i) => {
      li.classList.toggle('later', i > at);
      li.classList.toggle('current', i === at);
    });
    const li = items[Math.max(at, 0)];
    if (!li) return;
    const top = li.offsetTop, low = top + li.clientHeight;
    if (top < list.scrollTop || low > list.scrollTop + list.clientHeight) {
      list.scrollTop = top - list.clientHeight / 2;
    }
  };
  const paint = () => {
    drawStage();
    drawTrace();
    drawList();
    seek.value = 1000 * now / data.seconds;
    box.querySelector('.clock').textContent =
      `${now.toFixed(1)} / ${data.seconds.toFixed(1)} s`;
    box.querySelector('.speed').textContent = '×' + speed;
  };
  const stop = () => {
    last = null;
    box.classList.remove('running');
    play.textContent = 'Play';
  };
  const go = (t) => {
    now = Math.min(Math.max(t, 0), data.seconds);
    paint();
  };
  const tick = (time) => {
    if (last === null) return;
    const step = (time - last) / 1000 * speed;
    last = time;
    go(now + step);
    if (now >= data.seconds) stop(); else requestAnimationFrame(tick);
  };
  const actions = {
    play: () => {
      if (last !== null) { stop(); return; }
      if (now >= data.seconds) now = 0;
      box.classList.add('running');
      play.textContent = 'Pause';
      last = performance.now();
      requestAnimationFrame(tick);
    },
    speed: () => {
      speed = speeds[(speeds.indexOf(speed) + 1) % speeds.length];
      paint();
    },
  };
  box.addEventListener('click', (event) => {
    const button = event.target.closest('button');
    if (!button) return;
    if (button.dataset.do) actions[button.dataset.do]();
    if (button.dataset.time) { stop(); go(Number(button.dataset.time)); }
  });
  seek.addEventListener('input', () => { stop(); go(seek.value / 1000 * data.seconds); });
  box.addEventListener('keydown', (event) => {
    if (event.target.matches('input, button')) return;
    const step = { ArrowLeft: -0.25, ArrowRight: 0.25 }[event.key];
    if (step) { event.preventDefault(); stop(); go(now + step); }
    if (event.key === ' ') { event.preventDefault(); actions.play(); }
  });
  new ResizeObserver(paint).observe(canvas);
  const planned = data.decisions.find((d) => d[1] === 'plan');
  go(planned ? planned[0] + 2 * data.signal.step : 0);
})();
