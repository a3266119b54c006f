// Draws the figures of the page that are near to what the reader sees.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const specs = read('specs');
const configs = read('configs');
const dark = window.matchMedia('(prefers-color-scheme: dark)');
const drawn = new Map();  // element to the view that it shows

async function draw(element) {
  const scheme = dark.matches ? 'dark' : 'light';
  const before = drawn.get(element);
  drawn.set(element, null);
  if (before) before.finalize();
  const spec = Object.assign({
    autosize: {type: 'fit-x', contains: 'padding'},
    background: 'transparent',
  }, specs[+element.dataset.view]);
  drawn.set(element, await window.vegaEmbed(element, spec, {
    mode: 'vega-lite', actions: false, renderer: 'svg',
    config: configs[scheme], tooltip: {theme: scheme},
  }));
  // The element itself is the image, with what it shows as its label.
  for (const part of element.querySelectorAll('svg, svg [role]')) {
    part.removeAttribute('role');
    part.removeAttribute('aria-roledescription');
    if (part.tagName === 'svg') part.setAttribute('aria-hidden', 'true');
  }
}

const charts = document.querySelectorAll('.chart');
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting && !drawn.has(entry.target)) {
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  }
}, {rootMargin: '600px'});
charts.forEach((element) => watcher.observe(element));

const drawAll = () => Promise.all([...charts].filter(
    (element) => !drawn.has(element)).map(draw));
window.drawAll = drawAll;
window.addEventListener('beforeprint', drawAll);
dark.addEventListener('change', () => [...drawn.keys()].forEach(draw));
