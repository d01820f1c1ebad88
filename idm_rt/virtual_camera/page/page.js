"use strict";

const token = new URLSearchParams(location.search).get("token") || "";
const form = document.getElementById("controls");
const problem = document.getElementById("problem");
let editing = 0; // time of the user's last change: an answer on its way must not undo it on the page

function show(status) {
  const live = status.controls.live;
  if (Date.now() - editing > 700) {
    form.elements.enabled.checked = live.enabled;
    form.elements.compare.checked = status.controls.compare;
    form.elements.strength.value = live.strength;
    form.elements.steps.value = String(live.steps);
  }
  document.getElementById("strength-value").textContent = Number(form.elements.strength.value).toFixed(2);
  document.getElementById("state").textContent = sentence(status);
  const numbers = document.getElementById("numbers");
  numbers.replaceChildren(...rows(status).map(([name, value]) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    const cell = document.createElement("td");
    head.scope = "row";
    head.textContent = name;
    cell.textContent = value;
    row.append(head, cell);
    return row;
  }));
}

function sentence(status) {
  if (status.output.sink_error) return "The output is lost, trying again: " + status.output.sink_error;
  if (status.source.status !== "live") return "Camera " + status.source.status + (status.source.error ? ": " + status.source.error : "");
  if (!status.controls.live.enabled) return "Switched off: the original picture is shown.";
  if (status.engine_error) return "The original picture is shown: " + status.engine_error;
  if (status.worker.engine !== "running") return "The original picture is shown: the engine is " + status.worker.engine + ".";
  return "Faces are restored.";
}

function rows(status) {
  const shown = status.output.shown;
  const bypassed = Object.entries(status.worker.bypassed).map(([cause, count]) => cause + " " + count).join(", ");
  return [
    ["Pictures per second", status.output.fps.toFixed(1)],
    ["Delay, median / 95 %", Math.round(status.output.delay_ms.p50_ms) + " / " + Math.round(status.output.delay_ms.p95_ms) + " ms"],
    ["Level", status.worker.level],
    ["Enhanced / original / placeholder", [shown.enhanced, shown.original, shown.placeholder].map((n) => n || 0).join(" / ")],
    ["Original because", bypassed || "–"],
    ["Missed pictures", String(status.output.missed)],
    ["Frames dropped before the engine", String(status.worker.dropped)],
    ["Camera lost", status.source.losses + " times"],
  ];
}

function complain(text) {
  problem.textContent = text;
  problem.hidden = !text;
}

async function call(path, options = {}) {
  const response = await fetch(path, { ...options, headers: { "X-Token": token, "Content-Type": "application/json" } });
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

async function refresh() {
  try {
    show(await call("/api/status"));
    if (problem.dataset.from === "refresh") complain("");
  } catch (error) {
    problem.dataset.from = "refresh";
    complain(error instanceof TypeError ? "The camera program does not answer; is it still running?" : error.message);
  }
  setTimeout(refresh, 500);
}

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", async (event) => {
  editing = Date.now();
  const field = event.target;
  const value = field.type === "checkbox" ? field.checked : Number(field.value);
  try {
    show(await call("/api/controls", { method: "POST", body: JSON.stringify({ [field.name]: value }) }));
    complain("");
  } catch (error) {
    problem.dataset.from = "change";
    complain(error.message);
  }
});

refresh();
