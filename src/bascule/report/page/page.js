// What the page can do beyond being read: sort tables, name marks at once, and stay current while a run goes on. Without
// it nothing is missing but that.
"use strict";

for (const table of document.querySelectorAll("table[data-sortable]")) {
  const headings = [...table.tHead.rows[0].cells];
  const study = [...table.tBodies]; // a row with its flags, in the order of the study
  const said = document.createElement("p");
  said.className = "unseen";
  said.setAttribute("role", "status");
  table.parentNode.after(said);

  // The better end first, then the other, then as in the study.
  const sort = (column) => {
    const heading = headings[column];
    const better = heading.dataset.better === "highest" ? "descending" : "ascending";
    const worse = better === "ascending" ? "descending" : "ascending";
    const before = heading.getAttribute("aria-sort");
    const order = before === better ? worse : before === worse ? null : better;
    for (const other of headings) other.removeAttribute("aria-sort");
    if (order) heading.setAttribute("aria-sort", order);
    table.append(...(order ? sorted(column, order) : study));
    const name = heading.querySelector(".sort").textContent.replace(/[↑↓]/, "").trim();
    said.textContent = order ? `Sorted by ${name}, ${order}.` : "In the order of the study.";
  };

  const sorted = (column, order) => {
    const entries = study.map((body) => ({ body, value: body.rows[0].cells[column].dataset.value }));
    const known = entries.filter((entry) => entry.value !== "");
    const numeric = known.every((entry) => Number.isFinite(Number(entry.value)));
    const sign = order === "ascending" ? 1 : -1;
    known.sort((a, b) => sign * (numeric ? a.value - b.value : a.value.localeCompare(b.value, undefined, { numeric: true })));
    // What is not known is last, in either order.
    return [...known, ...entries.filter((entry) => entry.value === "")].map((entry) => entry.body);
  };

  headings.forEach((heading, column) => {
    // Not a <button>: browsers leave those out where a printed table repeats its headings.
    const button = heading.querySelector(".sort");
    button.tabIndex = 0;
    button.setAttribute("role", "button");
    button.addEventListener("click", () => sort(column));
    button.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort(column);
    });
  });
}

for (const figure of document.querySelectorAll(".tipped")) {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("aria-hidden", "true"); // the mark itself says the same
  figure.append(tip);
  let lit = null;

  const legend = (point) => document.querySelector(`[data-mark="${point.id}"]`);
  const light = (point, on) => {
    point.classList.toggle("on", on);
    legend(point)?.classList.toggle("on", on);
  };
  const hide = () => {
    if (lit) light(lit, false);
    lit = null;
    tip.hidden = true;
  };
  const show = (point) => {
    hide();
    lit = point;
    light(point, true);
    tip.textContent = point.getAttribute("aria-label");
    tip.hidden = false;
    const around = figure.getBoundingClientRect();
    const mark = point.getBoundingClientRect();
    const left = mark.left + mark.width / 2 - tip.offsetWidth / 2 - around.left;
    const above = mark.top - tip.offsetHeight - 8;
    const top = above >= Math.max(around.top, 0) ? above : mark.bottom + 8; // inside the figure and the window
    tip.style.left = `${Math.max(0, Math.min(left, around.width - tip.offsetWidth))}px`;
    tip.style.top = `${top - around.top}px`;
  };

  for (const point of figure.querySelectorAll(".point")) {
    // The browser's own box would come late and on top of ours.
    const title = point.querySelector("title");
    point.setAttribute("aria-label", title.textContent);
    title.remove();
    point.addEventListener("pointerenter", () => show(point));
    point.addEventListener("pointerleave", hide);
    point.addEventListener("focus", () => show(point));
    point.addEventListener("blur", hide);
    legend(point)?.addEventListener("pointerenter", () => light(point, true));
    legend(point)?.addEventListener("pointerleave", () => light(point, false));
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
  });
}

// While the run goes on the page is loaded anew, and looks as the reader left it, to the page of its end.
const every = Number(document.body.dataset.every);
const key = `bascule ${location.pathname}`;
const folds = [...document.querySelectorAll("details")];
const headings = [...document.querySelectorAll("th[data-better]")];
const alike = new Map();
const names = new Map(
  folds.map((fold) => {
    const words = fold.querySelector("summary").textContent.replace(/[\d,]+/g, ""); // counts change
    const name = `${fold.closest("section").id} ${words}`;
    alike.set(name, (alike.get(name) ?? 0) + 1);
    return [fold, `${name} ${alike.get(name)}`];
  }),
);

const taken = () => {
  try {
    const text = sessionStorage.getItem(key);
    sessionStorage.removeItem(key); // who comes again later begins at the top
    return JSON.parse(text) ?? {};
  } catch {
    return {}; // a page that may keep nothing starts at its top
  }
};
const kept = taken();
for (const fold of folds) fold.open ||= (kept.open ?? []).includes(names.get(fold));
const before = headings.find((heading) => heading.textContent === kept.heading);
for (let tries = 0; before && tries < 2 && before.getAttribute("aria-sort") !== kept.order; tries += 1) {
  before.querySelector(".sort").click();
}
// By section, since pages grow; the browser knows the old height only.
history.scrollRestoration = kept.section ? "manual" : "auto";
const place = document.getElementById(kept.section);
if (place) scrollBy({ top: place.getBoundingClientRect().top - kept.top, behavior: "instant" });

const renew = () => {
  const reading = document.hidden || !getSelection().isCollapsed; // neither is to be disturbed
  if (reading) return void setTimeout(renew, 1000);
  const chosen = headings.find((heading) => heading.hasAttribute("aria-sort"));
  const open = folds.filter((fold) => fold.open).map((fold) => names.get(fold));
  const tops = [...document.querySelectorAll("section")].map((part) => [part.id, part.getBoundingClientRect().top]);
  const [section, top] = tops.findLast((part) => part[1] <= 0) ?? []; // the one that is read
  const state = { section, top, open, heading: chosen?.textContent, order: chosen?.getAttribute("aria-sort") };
  try {
    sessionStorage.setItem(key, JSON.stringify(state));
  } catch {
    // as above
  }
  location.reload();
};
if (every) setTimeout(renew, 1000 * every);
