// The list: data files come as scripts that call wszooCatalog.add, since a page on a disk may not fetch. Everything
// that comes from models is put into the page as text.
"use strict";

const wszooCatalog = (() => {
  const PAGE = 50; // models that are added to the list at a time
  // Positions in a model's array, as wszoo/catalog/survey.py writes it.
  const [PAGE_NAME, REF, FAMILY, GPUS, , FULL, STORED, , LICENCE, SIGNATURES, PROBLEM] = Array(11).keys();

  /** @typedef {Array<any>} Model */
  /** @type {Model[]} */
  const models = [];
  /** @type {string[]} what is searched, in lower case, for each model */
  const texts = [];
  /** @type {Model[]} */
  let found = [];
  let shown = 0;
  let waiting = 0;

  const list = document.getElementById("models");
  const form = document.getElementById("filters");
  const more = document.getElementById("more");
  const none = document.getElementById("none");
  const count = document.getElementById("count");
  const template = document.getElementById("row");

  /** A size for people, as the command line prints it. @param {number} bytes */
  const human = (bytes) => {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let power = 0;
    while (bytes >= 1000 && power < units.length - 1) { bytes /= 1000; power += 1; }
    return `${bytes.toFixed(power === 0 || bytes >= 100 ? 0 : bytes >= 10 ? 1 : 2)} ${units[power]}`;
  };

  /** @param {Model} model */
  const meta = (model) => model[PROBLEM]
    ? "broken: cannot be read"
    : [model[FAMILY], model[LICENCE], model[SIGNATURES] ? "signed" : "not signed"].filter(Boolean).join(" · ");

  /** @param {Model} model @returns {DocumentFragment} */
  const row = (model) => {
    const made = template.content.cloneNode(true);
    const slot = (name) => made.querySelector(`[data-slot=${name}]`);
    slot("ref").textContent = model[REF];
    slot("ref").href = `catalog/models/${encodeURIComponent(model[PAGE_NAME])}.html`;
    slot("meta").textContent = meta(model);
    slot("sizes").textContent = model[PROBLEM] ? "" : `${human(model[STORED])} instead of ${human(model[FULL])}`;
    slot("bar").setAttribute("width", model[FULL] ? Math.min(100, 100 * model[STORED] / model[FULL]).toFixed(2) : 0);
    if (model[PROBLEM]) slot("picture").remove();
    for (const gpu of model[GPUS]) {
      const chip = document.createElement("li");
      chip.textContent = gpu;
      slot("gpus").append(chip);
    }
    return made;
  };

  const ORDERS = {
    small: (a, b) => a[STORED] - b[STORED],
    large: (a, b) => b[STORED] - a[STORED],
    saved: (a, b) => (b[FULL] - b[STORED]) - (a[FULL] - a[STORED]),
  };

  /** What the form asks for. @returns {Record<string, string>} */
  const wanted = () => Object.fromEntries([...new FormData(form)].filter(([, value]) => value));

  /** @param {Record<string, string>} query @returns {Model[]} */
  const search = ({ q = "", family, gpu, size, order }) => {
    const words = q.toLowerCase().split(/\s+/).filter(Boolean);
    const limit = Number(size);
    const hits = models.filter((model, place) =>
      words.every((word) => texts[place].includes(word))
      && (!family || model[FAMILY] === family)
      && (!gpu || model[GPUS].includes(gpu))
      && (!size || (limit > 0 ? model[STORED] <= limit : model[STORED] > -limit)));
    return ORDERS[order] ? hits.sort(ORDERS[order]) : hits;
  };

  const showMore = () => {
    const rows = document.createDocumentFragment();
    for (const model of found.slice(shown, shown + PAGE)) rows.append(row(model));
    list.append(rows);
    shown = Math.min(shown + PAGE, found.length);
    more.hidden = shown >= found.length;
    tell();
  };

  const tell = () => {
    const all = models.length.toLocaleString("en");
    const hits = found.length.toLocaleString("en");
    const here = shown < found.length ? `; the first ${shown.toLocaleString("en")} are shown` : "";
    const what = found.length === models.length ? `${all} ${models.length === 1 ? "model" : "models"}` : `${hits} of ${all} models`;
    count.textContent = waiting ? `${what}${here}; more are coming` : `${what}${here}`;
  };

  const update = () => {
    const query = wanted();
    found = search(query);
    shown = 0;
    list.replaceChildren();
    showMore();
    none.hidden = found.length > 0 || waiting > 0;
    const hash = new URLSearchParams(query).toString();
    if (hash !== location.hash.slice(1)) history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  };

  const restore = () => {
    form.reset();
    for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
      if (form.elements.namedItem(name)) form.elements.namedItem(name).value = value;
    }
  };

  const start = () => {
    restore();
    form.hidden = false;
    update();
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", update);
    addEventListener("hashchange", () => { restore(); update(); });
    more.firstElementChild.addEventListener("click", () => {
      const next = shown;
      showMore();
      list.children[next]?.querySelector("a").focus(); // who uses the keyboard goes on where the new ones begin
    });
    none.querySelector("button").addEventListener("click", () => { form.reset(); update(); form.elements.q.focus(); });
    addEventListener("keydown", (event) => {
      if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.target.closest("input, select, textarea")) {
        event.preventDefault();
        form.elements.q.focus();
      }
    });
  };

  const load = (path) => new Promise((done) => {
    const script = document.createElement("script");
    script.src = `catalog/${path}`;
    script.async = false; // run in order
    script.onload = script.onerror = done;
    document.head.append(script);
  });

  const files = (document.body.dataset.files || "").split(" ").filter((path) => /^data\/[0-9a-f]{16}\.js$/.test(path));
  if (list && files.length) {
    waiting = files.length;
    // After the page has been drawn: what stands in it is enough for the first look.
    requestAnimationFrame(() => setTimeout(async () => {
      await Promise.all(files.map(load));
      waiting = 0;
      start();
      document.body.dataset.ready = "";
    }));
  }

  return {
    /** Called by the data files. @param {Model[]} some */
    add(some) {
      for (const model of some) {
        models.push(model);
        texts.push([model[REF], model[FAMILY], model[LICENCE], ...model[GPUS]].join(" ").toLowerCase());
      }
    },
  };
})();
