// Looks at a report in a headless Chromium: load time, requests, errors, width,
// accessibility (axe-core), and pictures at 390 and 1400 pixels, light and dark.
//
//   npm install playwright-core axe-core
//   node tools/check_report.js report/index.html pictures
//
// CHROMIUM names the browser; default: /usr/bin/chromium. Exits with 1 if the
// page asks the network for something, logs an error, is wider than the window,
// takes 2 s to load, or if axe finds anything serious.
const fs = require('fs');
const path = require('path');
const local = (name) => require.resolve(
    name, {paths: [process.cwd(), __dirname]});
const {chromium} = require(local('playwright-core'));
const axe = fs.readFileSync(local('axe-core/axe.min.js'), 'utf8');

async function look(browser, file, out, width, colorScheme) {
  const problems = [];
  const context = await browser.newContext(
      {viewport: {width, height: 900}, colorScheme, offline: true});
  const page = await context.newPage();
  page.on('pageerror', (error) => problems.push(error.message));
  page.on('console', (said) => problems.push(said.text()));
  page.on('request', (request) => {
    if (!/^(file|data):/.test(request.url())) problems.push(request.url());
  });
  await page.goto('file://' + path.resolve(file), {waitUntil: 'load'});
  const load = await page.evaluate(
      () => performance.getEntriesByType('navigation')[0].loadEventEnd);
  if (load > 2000) problems.push(`loads in ${load} ms`);
  await page.evaluate(() => window.drawAll());
  const wide = await page.evaluate(
      () => document.documentElement.scrollWidth > innerWidth);
  if (wide) problems.push('is wider than the window');
  await page.evaluate(axe);
  const found = await page.evaluate(() => axe.run());
  for (const of of found.violations) {
    const text = `axe: ${of.impact} ${of.id}, ${of.nodes.length} places`;
    console.log(text);
    if (['serious', 'critical'].includes(of.impact)) problems.push(text);
  }
  const height = await page.evaluate(
      () => document.documentElement.scrollHeight);
  const step = 1800;
  await page.setViewportSize({width, height: step});
  for (let y = 0; y < height; y += step) {
    await page.evaluate((y) => window.scrollTo({top: y, behavior: 'instant'}),
        y);
    await page.waitForTimeout(100);
    await page.screenshot({path: path.join(
        out, `${width}-${colorScheme}-${String(y / step).padStart(2, '0')}.png`)});
  }
  console.log(`${width} ${colorScheme}: load ${Math.round(load)} ms, ` +
      `${problems.length} problems`);
  await context.close();
  return problems;
}

(async () => {
  const [file, out] = process.argv.slice(2);
  fs.mkdirSync(out, {recursive: true});
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking']});
  const problems = [];
  for (const width of [390, 1400]) {
    for (const scheme of ['light', 'dark']) {
      problems.push(...await look(browser, file, out, width, scheme));
    }
  }
  await browser.close();
  problems.forEach((problem) => console.log(problem));
  process.exit(problems.length ? 1 : 0);
})();
