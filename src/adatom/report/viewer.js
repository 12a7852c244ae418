// The viewer of frames: pictures, atoms, zoom, and the numbers of the atom under the pointer.
// Without this script the page shows the first frame with its defects.
(() => {
  'use strict';
  const box = document.querySelector('.viewer');
  if (!box) return;
  const data = JSON.parse(document.getElementById('frames-data').textContent);
  const svg = box.querySelector('svg');
  const image = svg.querySelector('image');
  const sets = [...svg.querySelectorAll('.set')];
  const layer = svg.querySelector('.atoms');
  const tip = box.querySelector('.tip');
  const bar = box.querySelector('.bar');
  const whole = svg.getAttribute('viewBox').split(' ').map(Number);
  const RING = 0.42; // Å: below half a bond of carbon, so that rings do not touch
  let view = [...whole], at = data.start, kind = 'smoothed', atoms = null;
  box.classList.add('live');

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const unpack = (frame) => {
    if (frame.atoms === null) return null;
    const raw = bytes(frame.atoms), n = raw.length / 9, out = [];
    const words = new DataView(raw.buffer);
    for (let i = 0; i < n; i++) {
      const o = 9 * i;
      out.push({
        x: whole[0] + (words.getUint16(o, true) / 65535 * 1.1 - 0.05) * whole[2],
        y: whole[1] + (words.getUint16(o + 2, true) / 65535 * 1.1 - 0.05) * whole[3],
        s: words.getUint16(o + 4, true) / 10000,
        p: raw[o + 6] / 255, e: raw[o + 7], q: raw[o + 8] / 255,
      });
    }
    return out;
  };
  const ring = (a, r) => `M${(a.x - r).toFixed(3)} ${a.y.toFixed(3)}a${r} ${r} 0 1 0 ${2 * r} 0` +
    `a${r} ${r} 0 1 0 ${-2 * r} 0`;
  const path = (d, cls, colour, fill) => {
    const p = document.createElementNS(svg.namespaceURI, 'path');
    p.setAttribute('d', d);
    p.setAttribute('class', cls);
    p.style[fill ? 'fill' : 'stroke'] = colour;
    layer.append(p);
  };
  const drawAtoms = () => {
    layer.replaceChildren();
    if (!atoms) return;
    data.elements.forEach(([name, colour], e) => {
      for (const sure of [true, false]) {
        const own = atoms.filter((a) => a.e === e && (a.p >= data.sure) === sure);
        if (own.length === 0) continue;
        const cls = (e === data.host ? 'host ' : 'guest ') + (sure ? 'sure' : 'unsure');
        path(own.map((a) => ring(a, RING)).join(''), 'rim ' + cls, colour, false);
        path(own.map((a) => ring(a, Math.max(2 * a.s, 0.01))).join(''), 'spot', colour, true);
      }
    });
  };
  const place = () => {
    svg.setAttribute('viewBox', view.join(' '));
    const width = svg.clientWidth || 560, u = view[2] / width;
    svg.style.setProperty('--u', u);
    box.classList.toggle('far', u > 0.11);
    box.classList.toggle('zoomed', view[2] < whole[2] * 0.999);
    const goal = view[2] / 4, power = 10 ** Math.floor(Math.log10(goal));
    const length = [5, 2, 1].map((m) => m * power).find((l) => l <= goal);
    bar.style.width = 100 * length / view[2] + '%';
    bar.textContent = length >= 10 ? length / 10 + ' nm' : length + ' Å';
  };
  const paint = () => {
    const frame = data.frames[at];
    const shown = frame[kind] || frame.smoothed;
    const e = kind === 'networks' && frame.networks ? data.mapExtent : whole;
    image.setAttribute('href', shown);
    ['x', 'y', 'width', 'height'].forEach((k, i) => image.setAttribute(k, e[i]));
    image.classList.toggle('pixels', kind === 'recorded');
  };
  const show = (n) => {
    at = Math.min(Math.max(n, 0), data.frames.length - 1);
    const frame = data.frames[at];
    sets.forEach((g) => g.classList.toggle('away', g.dataset.frame !== String(frame.n)));
    atoms = unpack(frame);
    box.classList.toggle('noatoms', atoms === null);
    drawAtoms();
    paint();
    tip.hidden = true;
    box.querySelector('.which').textContent = frame.name;
    const slide = box.querySelector('.slide');
    if (slide) slide.value = at;
  };
  const clamp = () => {
    for (const i of [0, 1]) {
      view[i] = Math.min(Math.max(view[i], whole[i]), whole[i] + whole[i + 2] - view[i + 2]);
    }
  };
  const zoom = (factor, cx = view[0] + view[2] / 2, cy = view[1] + view[3] / 2) => {
    const least = Math.min(6 / whole[2], 1), now = view[2] / whole[2];
    const next = Math.min(Math.max(now * factor, least), 1), f = next / now;
    view = [cx - (cx - view[0]) * f, cy - (cy - view[1]) * f, view[2] * f, view[3] * f];
    clamp();
    place();
  };
  const point = (event) => {
    const r = svg.getBoundingClientRect();
    return [view[0] + (event.clientX - r.left) / r.width * view[2],
      view[1] + (event.clientY - r.top) / r.height * view[3]];
  };
  const inspect = (event) => {
    if (!atoms || box.classList.contains('hideatoms')) { tip.hidden = true; return; }
    const [x, y] = point(event), r = svg.getBoundingClientRect();
    const reach = Math.max(0.7, 10 * view[2] / r.width);
    let best = -1, least = reach * reach;
    atoms.forEach((a, i) => {
      const d = (a.x - x) ** 2 + (a.y - y) ** 2;
      if (d < least) { least = d; best = i; }
    });
    tip.hidden = best < 0;
    if (best < 0) return;
    const a = atoms[best], p = (v) => (v > 0.99 ? '> 0.99' : v.toFixed(2));
    tip.replaceChildren();
    const line = (tag, text) => {
      const el = document.createElement(tag);
      el.textContent = text;
      tip.append(el);
    };
    line('b', `${data.elements[a.e][0]}, atom ${best}`);
    line('span', `exists: p ${p(a.p)}`);
    line('span', `element: p ${p(a.q)}`);
    line('span', `x ${a.x.toFixed(2)}, y ${a.y.toFixed(2)} Å`);
    line('span', `σ ${a.s.toFixed(3)} Å per axis`);
    const px = (a.x - view[0]) / view[2], py = (a.y - view[1]) / view[3];
    tip.style.left = 100 * px + '%';
    tip.style.top = 100 * py + '%';
    tip.classList.toggle('left', px > 0.6);
    tip.classList.toggle('up', py > 0.7);
  };

  const held = new Map();
  const spread = () => {
    const [a, b] = [...held.values()];
    return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
  };
  svg.addEventListener('pointerdown', (event) => {
    held.set(event.pointerId, event);
    if (event.pointerType === 'mouse') svg.setPointerCapture(event.pointerId);
    inspect(event);
  });
  svg.addEventListener('pointermove', (event) => {
    const old = held.get(event.pointerId);
    if (!old) { inspect(event); return; }
    if (held.size === 2) {
      const before = spread();
      held.set(event.pointerId, event);
      const middle = [...held.values()].map(point);
      zoom(before / Math.max(spread(), 1), (middle[0][0] + middle[1][0]) / 2,
        (middle[0][1] + middle[1][1]) / 2);
      return;
    }
    if (box.classList.contains('zoomed')) {
      const [x0, y0] = point(old), [x1, y1] = point(event);
      view[0] += x0 - x1;
      view[1] += y0 - y1;
      clamp();
      place();
      tip.hidden = true;
    }
    held.set(event.pointerId, event);
  });
  for (const name of ['pointerup', 'pointercancel', 'pointerleave']) {
    svg.addEventListener(name, (event) => {
      held.delete(event.pointerId);
      if (name === 'pointerleave' && event.pointerType === 'mouse') tip.hidden = true;
    });
  }
  svg.addEventListener('wheel', (event) => {
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.2 : 1 / 1.2, ...point(event));
  }, { passive: false });
  svg.addEventListener('dblclick', (event) => zoom(0.4, ...point(event)));

  const actions = {
    in: () => zoom(1 / 1.6), out: () => zoom(1.6), whole: () => zoom(1e6),
    previous: () => show(at - 1), next: () => show(at + 1),
  };
  box.addEventListener('click', (event) => {
    const button = event.target.closest('button');
    if (!button) return;
    if (button.dataset.do) actions[button.dataset.do]();
    if (button.dataset.picture) {
      kind = button.dataset.picture;
      box.querySelectorAll('[data-picture]').forEach((b) =>
        b.setAttribute('aria-pressed', String(b === button)));
      paint();
    }
    if (button.dataset.layer) {
      const hidden = box.classList.toggle('hide' + button.dataset.layer);
      button.setAttribute('aria-pressed', String(!hidden));
    }
  });
  const slide = box.querySelector('.slide');
  if (slide) slide.addEventListener('input', () => show(Number(slide.value)));
  box.addEventListener('keydown', (event) => {
    if (event.target.matches('input, button')) return;
    const act = { ArrowLeft: 'previous', ArrowRight: 'next', '+': 'in', '-': 'out', 0: 'whole' }[event.key];
    if (act) { event.preventDefault(); actions[act](); }
  });
  const go = (frame, x, y) => {
    const k = data.frames.findIndex((f) => f.n === frame);
    if (k >= 0) show(k);
    if (Number.isFinite(x)) {
      zoom(1e6);
      zoom(Math.min(24 / whole[2], 1), x, y);
      view[0] = x - view[2] / 2;
      view[1] = y - view[3] / 2;
      clamp();
      place();
    }
    box.scrollIntoView({ block: 'nearest' });
  };
  document.addEventListener('click', (event) => {
    const link = event.target.closest('[data-go]');
    if (!link) return;
    event.preventDefault();
    const [frame, x, y] = link.dataset.go.split(' ').map(Number);
    const r = link.getBoundingClientRect(); // a cell of the timeline may be several frames wide
    const wide = Number(link.dataset.last ?? frame) - frame + 1;
    const share = Math.min(Math.max((event.clientX - r.left) / r.width, 0), 0.999);
    go(frame + (wide > 1 ? Math.floor(share * wide) : 0), x, y);
  });
  new ResizeObserver(place).observe(svg);
  place();
  show(at);
})();
