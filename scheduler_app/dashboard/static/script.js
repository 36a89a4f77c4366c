// Liveness, local times, copying and previews. Everything else works without it.
"use strict";
(() => {
  const find = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const EVERY = 5000; // ms between two looks
  const live = find("#live"), marker = find(".marker");
  let tag = "", due = 0, paused = false, failed = false;
  // ── times ──
  const form = options => new Intl.DateTimeFormat("en-GB", options);
  const clock = form({ timeStyle: "medium" }), minute = form({ timeStyle: "short" });
  const day = form({ day: "numeric", month: "short" }), dated = form({ day: "numeric", month: "short", year: "numeric" }), full = form({ dateStyle: "full", timeStyle: "long" });
  const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  function span(seconds) {
    let left = Math.round(seconds);
    const at = UNITS.findIndex(([, size]) => left >= size || size === 1);
    return UNITS.slice(at, at + 2).map(([unit, size]) => { const n = Math.floor(left / size); left %= size; return n || seconds < 1 ? `${n} ${unit}` : ""; }).filter(Boolean).join(" ");
  }
  function written(time, now) {
    const at = new Date(time.dateTime), seconds = (now - at) / 1000, today = at.toDateString() === now.toDateString(), date = (at.getFullYear() === now.getFullYear() ? day : dated).format(at);
    return {
      age: () => seconds >= 0 ? `${span(seconds)} ago` : `in ${span(-seconds)}`,
      clock: () => today ? clock.format(at) : `${date}, ${minute.format(at)}`,
      minute: () => minute.format(at),
      day: () => day.format(at), span: () => span(Math.abs(seconds)),
      full: () => `${today ? "today" : date}, ${clock.format(at)}`,
    }[time.dataset.form]();
  }
  function tell() {
    const now = new Date();
    for (const time of all("time[data-form]")) {
      if (time.textContent !== written(time, now)) time.textContent = written(time, now);
      if (time.told !== time.dateTime) time.title = full.format(new Date(time.told = time.dateTime));
    }
  }
  // ── liveness ──
  function held() {
    if (paused) return "Paused";
    if (find("main tbody input:checked")) return "Held while rows are chosen";
    if (find("main details[open] form, dialog[open]")) return "Held while a form is open";
    const text = getSelection();
    return live.contains(text.anchorNode) && !text.isCollapsed ? "Held while text is selected" : "";
  }
  function mark() {
    const why = held(), text = why || (failed ? "No answer" : "Live");
    marker.hidden = false;
    marker.className = `marker ${why ? "held" : failed ? "failed" : ""}`;
    if (find("span", marker).textContent !== text) find("span", marker).textContent = text;
    return why;
  }
  const keep = (name, node) => !(name === "open" && node.matches("details")) && !(name === "title" && node.matches("time"));
  function morph(page) {
    const fresh = new DOMParser().parseFromString(page, "text/html");
    const calm = all("[data-calm]").filter(part => !part.matches(":hover, :focus-within"));
    for (const part of [live, ...calm]) {
      const other = find(`#${part.id}`, fresh), before = part.textContent;
      if (!other) return location.reload();
      Idiomorph.morph(part, other, { ignoreActiveValue: true, callbacks: { beforeAttributeUpdated: keep } });
      part.inert = part !== live && part.textContent !== before; // no click hits what has just come under the pointer
      setTimeout(() => { part.inert = false; }, 700);
    }
    tell();
  }
  async function look() {
    const began = performance.now();
    try {
      const answer = await fetch(location.href, { headers: { "Backbeat-Live": "1", ...(tag && { "If-None-Match": tag }) }, signal: AbortSignal.timeout(15000) });
      if (answer.status === 401) return location.reload();
      failed = !answer.ok && answer.status !== 304;
      if (answer.ok) {
        const page = await answer.text();
        if (!held()) { morph(page); tag = answer.headers.get("ETag"); }
      }
    } catch { failed = true; }
    due = performance.now() + Math.max(failed ? 2 * EVERY : EVERY, 10 * (performance.now() - began));
    mark();
  }
  function turn() {
    tell();
    if (live && !mark() && !document.hidden && performance.now() >= due) { due = Infinity; look(); }
  }
  // ── what is pressed ──
  async function copy(button) {
    const text = find(button.dataset.copy).textContent;
    if (navigator.clipboard) await navigator.clipboard.writeText(text).catch(() => {});
    else { // plain HTTP: the browser has only the old way
      const area = document.body.appendChild(Object.assign(document.createElement("textarea"), { value: text }));
      area.select(); document.execCommand("copy"); area.remove(); button.focus();
    }
    button.dataset.copied = "";
    setTimeout(() => delete button.dataset.copied, 1500);
  }
  let asked = new AbortController(); // the latest preview
  async function preview(form) {
    const mine = (asked.abort(), asked = new AbortController());
    await new Promise(go => setTimeout(go, 250));
    const shown = mine === asked && await fetch(form.dataset.preview, { method: "POST", body: new URLSearchParams(new FormData(form)), signal: mine.signal }).then(answer => answer.ok && answer.text()).catch(() => false);
    if (shown !== false && mine === asked) { Idiomorph.morph(find("#preview"), shown, { morphStyle: "innerHTML" }); tell(); }
  }
  document.addEventListener("click", event => {
    const copied = event.target.closest("[data-copy]"), pause = event.target.closest(".marker button");
    if (copied) return copy(copied);
    if (pause) { paused = !paused; pause.setAttribute("aria-pressed", paused); pause.setAttribute("aria-label", paused ? "Go on" : "Pause"); due = 0; turn(); }
  });
  document.addEventListener("input", event => {
    const form = event.target.closest("form[data-preview]"), press = event.target.dataset.press;
    if (press) find(press).click(); else if (form) preview(form);
    if (event.target.matches("[data-all]")) all("tbody input", event.target.form).forEach(box => { box.checked = event.target.checked; });
    if (live) mark();
  });
  document.addEventListener("keydown", event => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
    const field = find("main [role=search] input[type=search]");
    if (field) { event.preventDefault(); field.focus(); field.select(); }
  });
  document.addEventListener("visibilitychange", () => { due = 0; });
  for (const button of all("[data-copy]")) button.hidden = false;
  due = performance.now() + EVERY;
  turn(); setInterval(turn, 1000);
})();
