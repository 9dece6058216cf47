// Sorting, charts and images of the report. Everything that it shows comes from the page's own data.
'use strict';
(() => {
const data = JSON.parse(document.getElementById('data').textContent);
const root = document.documentElement;
const dark = matchMedia('(prefers-color-scheme: dark)');
const css = name => getComputedStyle(root).getPropertyValue(name).trim();
// A sentence in the page's language, looked up by its English text; places in braces are filled.
const say = (sentence, values = {}) => (data.sentences[sentence] ?? sentence).replace(/\{(\w+)\}/g, (_, name) => values[name]);
// Formats are made once: a matrix of many classes needs one for each cell, and each takes longer to make than to use.
const formats = {};
const decimal = (value, digits) => (formats[digits] ??= new Intl.NumberFormat(data.language,
  {minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping: false})).format(value);
const fourDigits = new Intl.NumberFormat(data.language, {maximumSignificantDigits: 4});
const brief = value => fourDigits.format(value);
const thousands = new Intl.NumberFormat(data.language);
const grouped = value => thousands.format(value);
const percent = (value, digits = 1) => `${decimal(100 * value, digits)}\u00a0%`;
const plain = text => String(text).replaceAll('&', '&amp;').replaceAll('<', '&lt;');  // for Plotly, which reads markup

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// ---- tables

function valueOf(row, column) {
  if (row.cells[column].dataset.order) return Number(row.cells[column].dataset.order);
  const text = row.cells[column].firstChild?.textContent.trim() ?? '';
  const plain = data.language === 'ru' ? text.replaceAll('\u00a0', '').replaceAll(',', '.') : text.replaceAll(',', '');
  const number = Number.parseFloat(plain.replaceAll('\u2212', '-'));
  return Number.isNaN(number) ? text : number;
}

function sortBy(table, column) {
  const header = table.tHead.rows[0].cells[column];
  const rows = [...table.tBodies[0].rows];
  const isText = rows.some(row => typeof valueOf(row, column) === 'string');
  const before = header.getAttribute('aria-sort');
  const falling = before ? before === 'ascending' : !isText;
  const sign = falling ? -1 : 1;
  rows.sort((one, other) => {
    const [a, b] = [valueOf(one, column), valueOf(other, column)];
    return sign * (isText ? String(a).localeCompare(String(b)) : a - b);
  });
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute('aria-sort');
  header.setAttribute('aria-sort', falling ? 'descending' : 'ascending');
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll('table.sortable')) {
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    const button = make('button', {type: 'button', textContent: cell.textContent, title: say('Sort by this column')});
    button.addEventListener('click', () => sortBy(table, column));
    cell.replaceChildren(button);
  });
}

// ---- images, cut from a split's sheet

function tile(split, place, size) {
  const {images, labels, width, height, columns} = data.splits[split];
  const canvas = make('canvas', {width, height});
  canvas.setAttribute('role', 'img');
  canvas.setAttribute('aria-label', `${images[place]}, ${data.classes[labels[place]]}`);
  canvas.style.width = `${size}px`;
  const sheet = document.getElementById(`sheet-${split}`);
  const corner = [(place % columns) * width, Math.floor(place / columns) * height];
  sheet.decode().then(() => canvas.getContext('2d').drawImage(sheet, ...corner, width, height, 0, 0, width, height));
  return canvas;
}

function answers(split, place) {
  const {answers, labels} = data.splits[split];
  return answers[place].map(([label, probability]) => {
    const line = make('span', {}, `${data.classes[label]} ${percent(probability, 2)}`);
    if (label === labels[place]) line.className = 'true';
    return line;
  });
}

const cellWords = (truth, answer) => truth === answer ? say('{truth}, recognised', {truth}) : say('{truth}, taken for {answer}', {truth, answer});

function openCell(split, i, j) {
  const {matrix, name, labels, images, answers: said = []} = data.splits[split];
  const count = matrix[i][j];
  const places = said.map((_, place) => place).filter(place => labels[place] === i && said[place][0][0] === j);
  places.sort((a, b) => said[b][0][1] - said[a][0][1]);
  const [truth, answer] = [data.classes[i], data.classes[j]];
  const what = cellWords(truth, answer);
  const shown = places.slice(0, 24);
  const total = matrix[i].reduce((a, b) => a + b, 0);
  const note = say('{count} of {total} images of {truth}; {shown} shown, the most certain first.',
    {count: grouped(count), total: grouped(total), truth, shown: shown.length});
  const items = shown.map(place => make('li', {}, tile(split, place, 96), ...answers(split, place), make('small', {textContent: images[place]})));
  const panel = document.getElementById(`cell-${split}`);
  panel.replaceChildren(make('h3', {textContent: `${name}: ${what}`}), make('p', {className: 'note', textContent: note}),
    make('ul', {className: 'worst'}, ...items));
}

root.classList.add('live');

// ---- charts

const COLORS = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#8C6D31', '#7F7F7F', '#B2182B', '#7B4FA3'];
const BRIGHT = ['#5AB4F0', '#FF8A3D', '#3CCB9F', '#EFA3CD', '#F5C04A', '#A4DCFF', '#CBB07A', '#BDBDBD', '#F4727F', '#BE97E6'];
const SYMBOLS = ['circle', 'square', 'diamond', 'cross', 'triangle-up', 'star', 'x', 'triangle-down', 'pentagon', 'hexagon'];
const color = number => (dark.matches ? BRIGHT : COLORS)[number % 10];
const axis = (title, extra = {}) => ({
  title: {text: title, standoff: 8}, gridcolor: css('--line'), linecolor: css('--soft'), zeroline: false, automargin: true, ...extra,
});
const layout = extra => ({
  paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', autosize: true,
  font: {family: getComputedStyle(document.body).fontFamily, size: 13, color: css('--ink')},
  margin: {l: 55, r: 12, t: 12, b: 45}, separators: data.language === 'ru' ? ',\u00a0' : '.,', legend: {orientation: 'h', y: 1.02, yanchor: 'bottom', x: 0},
  hoverlabel: {bgcolor: css('--tint'), bordercolor: css('--soft'), font: {color: css('--ink')}}, ...extra,
});
const tell = (div, text) => { div.closest('figure').querySelector('.said').textContent = text; };
const hover = (div, points) => Plotly.Fx.hover(div, points, 'xy');

function inkOn(rgb) {
  const [r, g, b] = rgb.map(value => value / 255).map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 ? '#ffffff' : '#000000';
}

// Each kind returns what to draw, and what a key does; `steps` is the number of places that the arrows go through.
const KINDS = {
  curves() {
    const {epochs, panels} = data.curves;
    const tops = [[0.62, 1], [0.24, 0.56], [0, 0.16]];  // accuracy, loss, learning rate
    const dashes = ['solid', 'dash', 'dot'];
    const rate = panels.length - 1;
    const traces = panels.flatMap(({title, series}, number) => series.map(([name, values], place) => ({
      x: epochs, y: values, name: number === rate ? name : `${name}: ${title}`, mode: epochs.length < 20 ? 'lines+markers' : 'lines',
      line: {color: color(number === rate ? 7 : place), dash: dashes[place % 3]}, yaxis: number ? `y${number + 1}` : 'y',
      showlegend: number === 0, hovertemplate: '%{y:.4~g}', legendgroup: name,
    })));
    const axes = Object.fromEntries(panels.map(({title}, number) => [
      number ? `yaxis${number + 1}` : 'yaxis', axis(title, {domain: tops[number], nticks: number === rate ? 2 : 5}),
    ]));
    const ends = [epochs[0] - 0.3, epochs[epochs.length - 1] + 0.3];
    const x = axis(say('epoch'), {anchor: `y${panels.length}`, showspikes: true, spikemode: 'across', range: ends, spikethickness: 1,
      spikecolor: css('--soft'), spikedash: 'dot', tickformat: 'd', ...(epochs.length < 12 ? {dtick: 1} : {})});
    return {
      traces, layout: layout({height: 500, hovermode: 'x unified', hoversubplots: 'axis', xaxis: x, ...axes}),
      steps: epochs.length,
      go(div, place) {
        Plotly.Fx.hover(div, {xval: epochs[place]}, 'xy');
        const values = traces.map(({name, y}) => `${name} ${y[place] == null ? say('not measured') : brief(y[place])}`);
        tell(div, say('Epoch {number}: {values}', {number: epochs[place], values: values.join('; ')}));
      },
    };
  },
  matrix(div) {
    const {matrix} = data.splits[div.dataset.split];
    const num = matrix.length, names = data.classes.map(name => name.length > 14 ? `${name.slice(0, 13)}…` : name);
    const byRow = document.getElementById('by-row').checked;
    const sums = matrix.map(row => Math.max(row.reduce((a, b) => a + b, 0), 1));
    div.words ??= matrix.map((row, i) => row.map((count, j) =>
      `${plain(cellWords(data.classes[i], data.classes[j]))}: ${grouped(count)} (${percent(count / sums[i])})`));
    const shades = matrix.map((row, i) => row.map(count => Math.sqrt(byRow ? count / sums[i] : count)));
    const most = shades.flat().reduce((a, b) => Math.max(a, b), 1e-9);  // as arguments, they would overflow the stack
    const [pale, strong] = dark.matches ? [[27, 33, 38], [90, 180, 240]] : [[243, 247, 251], [8, 81, 156]];
    const trace = {
      type: 'heatmap', z: shades, hovertext: div.words, hovertemplate: '%{hovertext}<extra></extra>', showscale: false, xgap: 1, ygap: 1,
      colorscale: [[0, `rgb(${pale})`], [1, `rgb(${strong})`]], zmin: 0, zmax: most,
    };
    const numbers = () => ({
      type: 'scatter', mode: 'text', x: shades.flatMap(row => row.map((_, j) => j)), y: shades.flatMap((row, i) => row.map(() => i)),
      text: matrix.flatMap((row, i) => row.map(count => !count ? '' : byRow ? decimal(100 * count / sums[i], 1) : String(count))),
      // In black or white, whichever has more contrast with its cell.
      textfont: {size: num > 10 || byRow ? 10 : 12, color: shades.flat().map(shade =>
        inkOn(pale.map((from, channel) => from + (strong[channel] - from) * shade / most)))}, hoverinfo: 'skip', showlegend: false,
    });
    const places = data.classes.map((_, place) => place).filter(place => place % Math.ceil(num / 34) === 0);
    // Names stand upright where the longest fits between two ticks, at about 8 pixels a letter.
    const room = (div.clientWidth - 90) / num * Math.ceil(num / 34), longest = Math.max(...places.map(place => names[place].length));
    const ticks = {tickvals: places, ticktext: places.map(place => plain(names[place])), showgrid: false, fixedrange: true};
    const cursor = div.cursor ? [{type: 'rect', x0: div.cursor[1] - 0.5, x1: div.cursor[1] + 0.5, y0: div.cursor[0] - 0.5,
      y1: div.cursor[0] + 0.5, line: {color: dark.matches ? '#ffb454' : '#c2410c', width: 3}}] : [];
    const edge = data.numOld - 0.5, ink = {color: css('--soft'), width: 1};
    const lines = data.numOld ? [{type: 'line', x0: edge, x1: edge, y0: -0.5, y1: num - 0.5, line: ink},
      {type: 'line', x0: -0.5, x1: num - 0.5, y0: edge, y1: edge, line: ink}] : [];
    const shapes = [...lines, ...cursor];
    return {
      traces: num <= 12 ? [trace, numbers()] : [trace], shapes,
      layout: layout({height: Math.max(380, Math.min(div.clientWidth, 620)), shapes, margin: {l: 60, r: 8, t: 8, b: 60},
        xaxis: axis(say('predicted class'), {range: [-0.5, num - 0.5], ...ticks, tickangle: longest * 8 > room ? -45 : 0}), yaxis: axis(say('true class'), {...ticks, range: [num - 0.5, -0.5]})}),
      open: (i, j) => { div.cursor = [i, j]; draw(div); openCell(div.dataset.split, i, j); },
      move(rows, columns) {
        const [i, j] = div.cursor ?? [0, rows || columns ? -columns : 0];
        const within = value => Math.min(Math.max(value, 0), num - 1);
        div.cursor = [within(i + (div.cursor ? rows : 0)), within(j + columns)];
        draw(div);
        const [truth, answer] = div.cursor.map(label => data.classes[label]);
        const count = grouped(matrix[div.cursor[0]][div.cursor[1]]);
        tell(div, say('Images: {count}, {what}. Enter shows them.', {count, what: cellWords(truth, answer)}));
      },
    };
  },
  reliability() {
    const {certainty, accuracy, low, high, share} = data.reliability;
    const band = {x: certainty, mode: 'lines', line: {width: 0}, hoverinfo: 'skip', showlegend: false};
    const traces = [
      {x: [0, 1], y: [0, 1], mode: 'lines', line: {color: css('--soft'), dash: 'dash', width: 1}, hoverinfo: 'skip', showlegend: false},
      {...band, y: low}, {...band, y: high, fill: 'tonexty', fillcolor: `${color(0)}26`},
      {x: certainty, y: accuracy, mode: 'lines+markers', line: {color: color(0)}, customdata: share, showlegend: false,
        hovertemplate: `${say('probability {x}, right {y}, {share} of the images', {x: '%{x:.1%}', y: '%{y:.1%}', share: '%{customdata:.1%}'})}<extra></extra>`},
      {x: certainty, y: share, type: 'bar', yaxis: 'y2', marker: {color: color(0)}, width: certainty.map(() => 0.03), showlegend: false,
        hovertemplate: `${say('{share} of the images', {share: '%{y:.1%}'})}<extra></extra>`},
    ];
    return {
      traces, steps: certainty.length,
      layout: layout({height: 460, hovermode: 'closest', xaxis: axis(say('probability of the predicted class'), {range: [0, 1.02], anchor: 'y2', tickformat: '.0%'}),
        yaxis: axis(say('accuracy'), {range: [0, 1.04], domain: [0.3, 1], tickformat: '.0%'}), yaxis2: axis(say('images'), {domain: [0, 0.22], tickformat: '.0%', nticks: 3})}),
      go(div, place) {
        hover(div, [{curveNumber: 3, pointNumber: place}]);
        tell(div, say('probability {x}, right {y}, {share} of the images', {x: percent(certainty[place]), share: percent(share[place]),
          y: `${percent(accuracy[place])} (${decimal(100 * low[place], 1)}–${percent(high[place])})`}));
      },
    };
  },
  features() {
    const {x, y, places} = data.features, {labels} = data.splits.test;
    const order = [];
    const traces = data.classes.map((name, label) => {
      const rows = places.map((_, row) => row).filter(row => labels[places[row]] === label);
      rows.forEach((row, point) => order.push([label, point, places[row]]));
      return {type: 'scatter', mode: 'markers', name: plain(name), x: rows.map(row => x[row]), y: rows.map(row => y[row]),
        customdata: rows.map(row => places[row]), hoverinfo: 'none',
        marker: {color: color(label), symbol: SYMBOLS[(label + Math.floor(label / 10)) % 10], size: 7, opacity: 0.8}};
    });
    const bare = {showticklabels: false, showgrid: false, zeroline: false};
    return {
      traces, steps: order.length,
      layout: layout({height: 560, hovermode: 'closest', xaxis: bare, yaxis: bare, margin: {l: 8, r: 8, t: 8, b: 8}, legend: {orientation: 'h', y: -0.02, yanchor: 'top'}}),
      go(div, place) {
        const [curveNumber, pointNumber, image] = order[place];
        hover(div, [{curveNumber, pointNumber}]);
        peek(div, image);
      },
    };
  },
  field(div) {
    const {names, parameters, accuracy, low, high, nearest} = data.field, ours = names.length - 1;
    const range = {x: [parameters[ours]], y: [accuracy[ours]], mode: 'markers', marker: {size: 1, color: color(1)}, hoverinfo: 'skip', showlegend: false,
      error_y: {type: 'data', symmetric: false, array: [high - accuracy[ours]], arrayminus: [accuracy[ours] - low], color: color(1)}};
    // If there is room, all points are named; else this run and the row that it is compared with.
    const isNamed = row => row === ours || row === nearest || div.clientWidth > 700;
    const onTheRight = row => row === ours || row === nearest || parameters[row] < 3e5 || parameters[row] > 3e7 || names[row].startsWith('ResNeXt');
    const bottom = Math.min(0.91, accuracy[ours] - 0.01, low - 0.002), top = Math.max(0.965, ...accuracy.map(value => value + 0.002), high + 0.002);
    return {
      traces: [{x: parameters, y: accuracy, mode: 'markers+text', hovertext: names.map(plain), showlegend: false,
        text: names.map((name, row) => isNamed(row) ? `\u00a0${row === ours || row === nearest ? `<b>${plain(name)}</b>` : plain(name)}\u00a0` : ''),
        textposition: names.map((_, row) => onTheRight(row) ? 'middle right' : 'middle left'), textfont: {size: 11},
        marker: {size: names.map((_, row) => row === ours ? 13 : 9), color: names.map((_, row) => color(row === ours ? 1 : row === nearest ? 2 : 0)), symbol: names.map((_, row) => row === ours ? 'diamond' : 'circle')},
        hovertemplate: `%{hovertext}<br>${say('{parameters} parameters, {accuracy}', {parameters: '%{x:.3s}', accuracy: '%{y:.2%}'})}<extra></extra>`}, range],
      layout: layout({height: 440, hovermode: 'closest', yaxis: axis(say('test accuracy'), {tickformat: '.0%', range: [bottom, top]}),
        xaxis: axis(say('parameters'), {type: 'log', tickformat: '.1~s', dtick: 1, range: [Math.log10(Math.min(...parameters, 2e5) * 0.7), Math.log10(Math.max(...parameters, 2e8) * 1.5)]})}),
      steps: names.length,
      go(div, place) {
        hover(div, [{curveNumber: 0, pointNumber: place}]);
        const values = say('{parameters} parameters, {accuracy}', {parameters: grouped(parameters[place]), accuracy: percent(accuracy[place], 2)});
        tell(div, `${names[place]}: ${values}.`);
      },
    };
  },
};

function peek(div, place, box) {
  const panel = div.parentElement.querySelector('.peek');
  const {labels, images} = data.splits.test;
  const truth = make('b', {textContent: data.classes[labels[place]]});
  panel.replaceChildren(tile('test', place, 80), make('div', {}, truth, make('br'), images[place], ...answers('test', place).map(line => make('div', {}, line))));
  panel.hidden = false;
  const left = box ? (box.x0 + box.x1) / 2 : 0, top = box ? box.y1 : 0;
  const onTheLeft = left > div.clientWidth / 2;
  panel.style.left = onTheLeft ? 'auto' : `${left + 14}px`;
  panel.style.right = onTheLeft ? `${div.clientWidth - left + 14}px` : 'auto';
  panel.style.top = `${Math.min(top, div.clientHeight - 130)}px`;
  const answer = answers('test', place).map(line => line.textContent).join(', ');
  tell(div, say('{truth}, {image}: the network says {answer}.', {truth: truth.textContent, image: images[place], answer}));
}

const charts = [...document.querySelectorAll('.chart')];
const CONFIG = {responsive: true, displayModeBar: false};
function draw(div) {
  div.kind = KINDS[div.dataset.chart](div);
  return Plotly.react(div, div.kind.traces, div.kind.layout, CONFIG);
}

const STEPS = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity};
const MOVES = {ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0]};
function onKey(event) {
  const div = event.currentTarget, {kind} = div;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (kind.move && event.key in MOVES) kind.move(...MOVES[event.key]);
  else if (kind.open && ['Enter', ' '].includes(event.key) && div.cursor) kind.open(...div.cursor);
  else if (kind.go && event.key in STEPS) {
    const step = STEPS[event.key];
    div.place = div.place === undefined && step > 0 && step < Infinity ? 0 : Math.min(Math.max((div.place ?? 0) + step, 0), kind.steps - 1);
    kind.go(div, div.place);
  } else return;
  event.preventDefault();
}

for (const div of charts) {
  draw(div);
  // Not only with the window: a scroll bar that appears once all charts are drawn makes each of them narrower.
  let width = div.clientWidth;
  new ResizeObserver(() => {
    if (!div.clientWidth || div.clientWidth === width) return;
    width = div.clientWidth;
    draw(div);
  }).observe(div);
  div.addEventListener('keydown', onKey);
  if (div.dataset.chart === 'matrix') div.on('plotly_click', ({points: [point]}) => div.kind.open(point.y, point.x));
  if (div.dataset.chart === 'features') {
    const show = ({points: [point]}) => peek(div, point.customdata, point.bbox);
    div.on('plotly_hover', show);
    div.on('plotly_click', show);
    div.on('plotly_unhover', () => { div.parentElement.querySelector('.peek').hidden = true; });
  }
}
document.getElementById('by-row')?.addEventListener('change', () => charts.filter(div => div.dataset.chart === 'matrix').forEach(draw));
dark.addEventListener('change', () => charts.forEach(draw));
})();
