// The script of the exported file. Pages look as utils/reading/page.py makes them; the data is what utils/reading/export.py packed.
const $ = id => document.getElementById(id);
const facts = JSON.parse($("facts").textContent);
const say = (text, kind = "bad") => { $("say").className = text ? `pts pts-${kind}` : "pts"; $("say").textContent = text; };
const escaped = text => text.replace(/[&<>"']/g, sign => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[sign]);
const visible = token => token.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll("\r", "␍");
const running = token => token.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll("\r", "");
const grouped = number => number.toLocaleString("en");
const BEFORE = facts.before, AFTER = facts.after;
let data, rowOf, here = -1, found = [];

async function unpack() {
  if (typeof DecompressionStream === "undefined") throw new Error("This browser is too old to read the file: it needs one of 2023 or later (Chrome 80, Firefox 113, Safari 16.4).");
  const packed = Uint8Array.from(atob($("data").textContent), sign => sign.charCodeAt(0));
  const bytes = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  const head = new DataView(bytes).getUint32(0, true), index = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, head)));
  const kinds = { uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, uint32: Uint32Array, float32: Float32Array };
  return Object.fromEntries(Object.entries(index).map(([name, [kind, offset, size]]) => [name, new kinds[kind](bytes, 4 + head + offset, size)]));
}

const name = row => facts.names[row][2] ? visible(facts.names[row][0]) : "(never fires)";
const chip = (latent, score) => rowOf.has(latent)
  ? `<a class="pts-chip" href="#${latent}"><b>${latent}</b><span class="pts-tok">${escaped(name(rowOf.get(latent)))}</span><i>${score}</i></a>`
  : `<span class="pts-chip" title="not in this file"><b>${latent}</b><i>${score}</i></span>`;

function shaded(tokens, values, from, to, largest, position) {
  let text = "";
  for (let i = from; i < to; i++) {
    const value = values.get(i) ?? 0, plain = running(tokens[i]), inside = plain.trimStart() || plain, token = escaped(inside);
    text += plain.slice(0, plain.length - inside.length);
    if (value) text += `<mark style="--v:${(value / 255).toFixed(2)}" title="${(value / 255 * largest).toFixed(1)}"${i === position ? " class=pts-peak" : ""}>${token}</mark>`;
    else text += i === position ? `<span class=pts-asked>${token}</span>` : token;
  }
  return text;
}

function histogram(row) {
  const n = facts.n_bins, counts = data.histogram.subarray(row * n, row * n + n);
  let last = n; while (last && !counts[last - 1]) last--;
  const most = Math.max(...counts), top = 8, left = 30, width = 176, height = 92, step = width / last, end = (last * data.bin_width[row]).toFixed(1);
  let bars = "";
  for (let i = 0; i < last; i++) if (counts[i]) { const h = Math.log1p(counts[i]) / Math.log1p(most) * height; bars += `M${left + i * step} ${top + height}v${-h}h${Math.max(step - 1, .6)}v${h}z`; }
  const said = `Histogram of ${grouped(counts.reduce((a, b) => a + b, 0))} firings by value, from 0 to ${end}; at most ${grouped(most)} in one bar; counts on a logarithmic scale.`;
  return `<svg width="${left + width + 12}" height="${top + height + 34}" role="img" aria-label="${said}"><title>${said}</title><path d="${bars}" fill="#0072B2" stroke="currentColor" stroke-width=".4"/>`
    + `<path d="M${left} ${top}v${height}h${width}" fill="none" stroke="currentColor" opacity=".6"/><text x="${left - 4}" y="${top + 9}" text-anchor="end">${most < 1000 ? most : (most / 1000).toFixed(0) + "k"}</text>`
    + `<text x="${left - 4}" y="${top + height}" text-anchor="end">0</text><text x="${left}" y="${top + height + 14}" text-anchor="middle">0</text><text x="${left + width}" y="${top + height + 14}" text-anchor="end">${end}</text>`
    + `<text x="${left + width / 2}" y="${top + height + 28}" text-anchor="middle">value (tokens, log scale)</text></svg>`;
}

function label(row) {
  if (!facts.labels[row]) return "";
  const [rule, said, , weak] = facts.labels[row];
  return `<p class="pts-label${weak ? " pts-weak" : ""}">${weak ? "Weak label" : "Label"} <span class="pts-tok">${escaped(rule)}</span> <small>${escaped(said)}</small></p>`;
}

function logits(row, side, title) {
  const n = facts.n_logits;
  let rows = "";
  for (let i = row * n; i < row * n + n; i++) {
    const logit = data[`${side}_logits`][i];
    rows += `<tr><td class="pts-tok">${escaped(visible(facts.vocabulary[data[side][i]]))}</td><td>${logit < 0 ? "−" : "+"}${Math.abs(logit).toFixed(2)}</td></tr>`;
  }
  return `<table class="pts-logits"><caption>${title}</caption>${rows}</table>`;
}

const neighbours = (row, which) => {
  const near = [];
  for (let i = row * facts.n_near; i < (row + 1) * facts.n_near; i++) if (data[which][i]) near.push([data[which][i] - 1, data[`${which}_score`][i] / 100]);
  return near;
};
const near = (row, which, title, unit) => {
  const chips = neighbours(row, which).map(([latent, score]) => chip(latent, score.toFixed(2))).join("");
  return `<h3>${title}<small>${unit}</small></h3>${chips ? `<div class="pts-chips">${chips}</div>` : "<p>None that we saw.</p>"}`;
};

function examples(row) {
  let html = "", group = -1;
  for (let e = data.example_start[row]; e < data.example_start[row + 1]; e++) {
    const [title, text, position] = data.examples.subarray(3 * e, 3 * e + 3), values = new Map();
    for (let i = data.fire_start[e]; i < data.fire_start[e + 1]; i++) values.set(data.fires[2 * i], data.fires[2 * i + 1]);
    const tokens = Array.from(data.text.subarray(text * facts.pos, (text + 1) * facts.pos), id => facts.vocabulary[id]);
    const low = Math.max(1, position - BEFORE), high = Math.min(facts.pos, position + 1 + AFTER), largest = data.largest[row], fires = values.has(position);
    if (title !== group) html += `${group < 0 ? "" : "</ol>"}<h3>${escaped(facts.titles[title])}</h3><ol class="pts-examples">`;
    group = title;
    html += `<li><span class="pts-value">${fires ? (values.get(position) / 255 * largest).toFixed(1) : "silent"}</span><details><summary>${low > 1 ? "…" : ""}`
      + `${shaded(tokens, values, low, high, largest, position)}${high < facts.pos ? "…" : ""}</summary><div>${shaded(tokens, values, 1, facts.pos, largest, position)}</div></details></li>`;
  }
  return html + (group < 0 ? "" : "</ol>");
}

function share(rate) { return rate > 0 && rate < 0.02 ? `1 in ${grouped(Math.round(1 / rate))}` : `${Math.round(rate * 100)}% of`; }

function open(latent) {
  const row = rowOf.get(latent);
  if (row === undefined) { say(`There is no latent ${latent} in this file: it holds ${grouped(facts.names.length)}, from ${data.latents[0]} to ${data.latents[data.latents.length - 1]}.`); return; }
  say("");
  here = row;
  const [token, times, n] = facts.names[row], rate = data.rate[row];
  const head = n
    ? `<h2>Latent ${latent}<small><span class="pts-tok">${escaped(visible(token))}</span> at ${times} of its ${n} strongest examples</small></h2>`
      + `<p>Fires at ${share(rate)} tokens, ${grouped(Math.round(rate * facts.tokens))} of ${grouped(facts.tokens)}. Largest value ${data.largest[row].toFixed(1)}.</p>${label(row)}`
    : `<h2>Latent ${latent}<small>never fired</small></h2><p>It is silent on all ${grouped(facts.tokens)} tokens of ${escaped(facts.corpus || "this corpus")}. There is nothing to read but what it writes.</p>`;
  $("page").innerHTML = head + `<div class="pts-fig">${n ? histogram(row) : ""}${logits(row, "up", "▲ Tokens it raises")}${logits(row, "down", "▼ Tokens it lowers")}</div>`
    + near(row, "cofiring", "Fires at the same tokens", "phi coefficient") + near(row, "similar", "Writes in a similar direction", "cosine") + examples(row);
  document.title = `Latent ${latent}: ${name(row)}`;
  marks();
}

const dots = document.querySelector(".pts-dots");
function marks() {
  const xy = dots.dataset.xy.split(" ").map(Number), at = row => [xy[2 * row], xy[2 * row + 1]];
  let shapes = found.slice(0, 60).map(row => { const [x, y] = at(row); return `<path d="M${x} ${y - 14}l12 21h-24z" class="pts-found"/>`; }).join("");
  for (const [latent] of neighbours(here, "similar")) if (rowOf.has(latent)) { const [x, y] = at(rowOf.get(latent)); shapes += `<circle cx="${x}" cy="${y}" r="12" class="pts-near"/>`; }
  for (const [latent] of neighbours(here, "cofiring")) if (rowOf.has(latent)) { const [x, y] = at(rowOf.get(latent)); shapes += `<path d="M${x - 11} ${y - 11}h22v22h-22z" class="pts-near"/>`; }
  const [x, y] = at(here);
  shapes += `<path class="pts-here" d="M${x - 34} ${y}h20M${x + 14} ${y}h20M${x} ${y - 34}v20M${x} ${y + 14}v20"/><circle class="pts-here-dot" cx="${x}" cy="${y}" r="9"/>`;
  $("marks").innerHTML = `<svg class="pts-marks" viewBox="0 0 1000 1000" data-here="${data.latents[here]}" aria-hidden="true">${shapes}</svg>`;
}

// Latents of which two or more of the strongest examples lie on the token, as `find_latents` finds them: capitals and outer spaces do not count.
function byToken(query) {
  const wanted = query.trim().toLowerCase(), same = new Set(), hits = [];
  facts.vocabulary.forEach((token, id) => { if (token.trim().toLowerCase() === wanted) same.add(id); });
  for (let row = 0; row < facts.names.length; row++) {
    let times = 0, of = 0;
    for (let e = data.example_start[row]; e < data.example_start[row + 1] && facts.titles[data.examples[3 * e]] === facts.titles[0]; e++, of++)
      if (same.has(data.text[data.examples[3 * e + 1] * facts.pos + data.examples[3 * e + 2]])) times++;
    if (times >= 2) hits.push([row, times / of]);
  }
  return hits.sort((a, b) => b[1] - a[1]);
}

const byLabel = query => facts.labels.flatMap((label, row) => label && label[0].toLowerCase().includes(query.trim().toLowerCase()) ? [row] : []).sort((a, b) => facts.labels[b][4] - facts.labels[a][4]);

function search(query) {
  if (!query) return say("There is nothing to search for: type a number or a word first.");
  const number = /^(?:latent|#)?\s*(\d{1,9})$/i.exec(query);
  if (number && rowOf.has(+number[1])) { location.hash = number[1]; return open(+number[1]); }
  const hits = byToken(query), named = byLabel(query);
  found = [...new Set([...hits.map(([row]) => row), ...named])];
  $("found").innerHTML = "";
  if (!found.length) return number ? open(+number[1]) : say(`No latent here has two of its strongest examples on “${query}”${facts.labels.some(Boolean) ? ", and no label says it" : ""}. Search for another word, or a part of this one.`);
  say("");
  const list = (title, chips) => chips.length ? `<p>${chips.length} ${title}${chips.length > 60 ? " Here are the first 60." : ""}</p><div class="pts-chips">${chips.slice(0, 60).join("")}</div>` : "";
  $("found").innerHTML = `<div class="pts-scroll">`
    + list(`latents have their strongest examples on “${escaped(query)}”. The number is the share of these examples.`, hits.map(([row, part]) => chip(data.latents[row], `${Math.round(100 * part)}%`)))
    + list(`labels say “${escaped(query)}”, the best first. The number is the label's score; chance is 0.50.`, named.map(row => chip(data.latents[row], facts.labels[row][2]))) + "</div>";
  marks();
}

function follow() { const latent = /^#(\d+)$/.exec(location.hash); open(latent ? +latent[1] : data.latents[Math.max(0, data.largest.findIndex(value => value > 0))]); }

unpack().then(arrays => {
  data = arrays;
  rowOf = new Map(Array.from(data.latents, (latent, row) => [latent, row]));
  const go = row => { location.hash = data.latents[(row + data.latents.length) % data.latents.length]; };
  for (const event of ["click", "mousemove", "mouseleave", "keydown"]) dots.addEventListener(event, e => onMap(e, dots, latent => { location.hash = latent; }));
  $("search").addEventListener("submit", event => { event.preventDefault(); search($("query").value.trim()); });
  $("before").onclick = () => go(here - 1);
  $("after").onclick = () => go(here + 1);
  const alive = facts.names.flatMap(([, , n], row) => n ? [row] : []);
  $("random").onclick = () => alive.length && go(alive[Math.floor(Math.random() * alive.length)]);
  addEventListener("hashchange", follow);
  say("");
  follow();
  if (here < 0) { const said = $("say").textContent; open(data.latents[0]); say(said); }
}).catch(error => say(`${error.message || error} The file may be damaged or cut off.`));
