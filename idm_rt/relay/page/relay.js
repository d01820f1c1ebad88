"use strict";
// One call to the relay: the camera goes there and comes back. No library, no build step.

const $ = (id) => document.getElementById(id);
const NUMBERS_EVERY_MS = 1000;
const CONTROL_EVERY_MS = 120; // a slider moves faster than the relay wants to hear of it

// A token comes behind the # of the address, which a browser never sends to a server.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const headers = (more) => ({ ...(token ? { Authorization: `Bearer ${token}` } : {}), ...more });

let call = null; // {peer, camera, session, timer, frames, at}

const CAMERA_REFUSED = {
  NotAllowedError: "The browser was not allowed to use the camera. Allow it for this page (the camera sign in the address bar) and press Start again.",
  NotFoundError: "No camera was found. Connect one and press Start again.",
  NotReadableError: "The camera is there but cannot be read; another program may be using it. Close that and press Start again.",
  OverconstrainedError: "The chosen camera is gone. Choose another one.",
  SecurityError: "The browser gives no camera to this page. Open it at https:// or at http://127.0.0.1.",
};

const STATES = { bypass: "Connected. The relay's machine is too busy: the picture passes as it is." };

function say(text) { $("status").textContent = text; }

function trouble(text) {
  $("trouble").textContent = text || "";
  $("trouble").hidden = !text;
}

async function start() {
  trouble("");
  $("start").disabled = true;
  say("Asking for the camera …");
  const camera = await openCamera();
  if (!camera) { $("start").disabled = false; say("Not connected."); return; }
  call = { camera, peer: new RTCPeerConnection(), frames: 0, at: 0 };
  try {
    await connect(call);
  } catch (error) {
    trouble(error.message);
    stop();
  }
}

async function openCamera() {
  if (!navigator.mediaDevices) { trouble(CAMERA_REFUSED.SecurityError); return null; }
  const chosen = $("device").value;
  const video = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };
  if (chosen) video.deviceId = { exact: chosen };
  try {
    const camera = await navigator.mediaDevices.getUserMedia({ video });
    await listCameras(camera);
    return camera;
  } catch (error) {
    trouble(CAMERA_REFUSED[error.name] || `The camera could not be opened: ${error.message}`);
    return null;
  }
}

async function listCameras(camera) {
  const found = (await navigator.mediaDevices.enumerateDevices()).filter((each) => each.kind === "videoinput");
  const used = camera.getVideoTracks()[0].getSettings().deviceId;
  $("device").replaceChildren(...found.map((each, index) =>
    new Option(each.label || `Camera ${index + 1}`, each.deviceId, false, each.deviceId === used)));
}

async function connect(call) {
  const { peer, camera } = call;
  say("Connecting …");
  $("camera").srcObject = camera;
  for (const track of camera.getTracks()) peer.addTrack(track, camera);
  peer.ontrack = ({ track }) => { if (track.kind === "video") show(track); };
  peer.onconnectionstatechange = () => onState(peer.connectionState);
  camera.getVideoTracks()[0].onended = () => { trouble("The camera has stopped."); stop(); };
  await peer.setLocalDescription(await peer.createOffer());
  await gathered(peer);
  const answer = await ask("POST", "/offer", { type: "offer", sdp: peer.localDescription.sdp });
  call.session = answer.session;
  await peer.setRemoteDescription({ type: answer.type, sdp: answer.sdp });
  call.timer = setInterval(numbers, NUMBERS_EVERY_MS);
  for (const id of ["split", "enabled", "strength", "steps", "stop"]) $(id).disabled = false;
  $("camera").hidden = true;
  await control();
}

function gathered(peer) {
  return new Promise((done) => {
    const look = () => { if (peer.iceGatheringState === "complete") done(); };
    peer.addEventListener("icegatheringstatechange", look);
    setTimeout(done, 1500);
    look();
  });
}

async function ask(method, path, body) {
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const response = await fetch(path, { method, body: sent, headers: headers(sent && { "Content-Type": "application/json" }) });
  const text = await response.text();
  let value = {};
  try { value = JSON.parse(text); } catch { /* an answer without a body, or not from the relay */ }
  if (!response.ok) throw new Error(refusal(response, value.detail));
  return value;
}

function refusal(response, detail) {
  if (response.status === 401) return "The relay asks for a token. Open the address that its operator gave you, with #token=… at its end.";
  if (response.status === 503) return `The relay is full. Try again in ${response.headers.get("Retry-After") || "a few"} seconds.`;
  if (response.status === 429) return "Too many attempts. Wait a little.";
  return `The relay refused: ${detail || response.status}`;
}

function show(track) {
  $("shown").srcObject = new MediaStream([track]);
  $("empty").hidden = true;
}

function onState(state) {
  if (state === "connected") say("Connected.");
  else if (state === "failed") { trouble("The connection to the relay broke."); stop(); }
  else if (call) say(`Connection: ${state}.`);
}

function stop() {
  if (!call) return;
  const { peer, camera, session, timer } = call;
  call = null;
  clearInterval(timer);
  peer.close();
  for (const track of camera.getTracks()) track.stop();
  if (session) fetch(session, { method: "DELETE", headers: headers(), keepalive: true }).catch(() => {});
  for (const id of ["split", "enabled", "strength", "steps", "stop"]) $(id).disabled = true;
  $("shown").srcObject = $("camera").srcObject = null;
  $("empty").hidden = false;
  $("start").disabled = false;
  drawSplit(0);
  say("Not connected.");
}

let pending = null;
function controlSoon() {
  drawSplit($("enabled").checked ? Number($("split").value) : 0);
  $("strength-value").textContent = `${$("strength").value} %`;
  if (pending || !call) return;
  pending = setTimeout(() => { pending = null; control().catch((error) => trouble(error.message)); }, CONTROL_EVERY_MS);
}

async function control() {
  if (!call || !call.session) return;
  await ask("PATCH", call.session, {
    enabled: $("enabled").checked,
    steps: Number(document.querySelector("input[name=steps]:checked").value),
    strength: Number($("strength").value) / 100,
    split: Number($("split").value) / 100,
  });
}

// The picture lies inside the frame with bars at its sides where the shapes differ: the line follows the picture.
function drawSplit(percent) {
  const frame = $("frame").getBoundingClientRect(), video = $("shown");
  const shape = video.videoWidth ? video.videoWidth / video.videoHeight : 4 / 3;
  const width = Math.min(frame.width, frame.height * shape);
  $("edge").style.left = `${(frame.width - width) / 2 + width * percent / 100}px`;
  for (const id of ["edge", "tag-before", "tag-after"]) $(id).hidden = percent <= 0 || percent >= 100;
}

async function numbers() {
  if (!call) return;
  try {
    const now = await ask("GET", call.session);
    if (!call) return;
    $("n-fps").textContent = `${await shownPerSecond()} frames/s`;
    $("n-delay").textContent = `${now.delay_ms.p50_ms.toFixed(0)} ms (95 %: ${now.delay_ms.p95_ms.toFixed(0)})`;
    $("n-drops").textContent = now.dropped;
    $("n-bypassed").textContent = Object.values(now.bypassed).reduce((sum, each) => sum + each, 0);
    $("n-engine").textContent = now.error ? "none" : now.engine;
    $("n-level").textContent = now.level;
    if (now.state === "connected") say(STATES[now.level] || "Connected.");
    if (now.error) trouble(`The relay has no engine and shows the picture as it is: ${now.error}`);
  } catch (error) {
    trouble(error.message);
  }
}

async function shownPerSecond() {
  for (const report of (await call.peer.getStats()).values()) {
    if (report.type !== "inbound-rtp" || report.kind !== "video") continue;
    const frames = report.framesDecoded || 0, seconds = (report.timestamp - call.at) / 1000;
    const rate = call.at ? (frames - call.frames) / seconds : 0;
    call.frames = frames;
    call.at = report.timestamp;
    return rate.toFixed(1);
  }
  return "0";
}

$("start").addEventListener("click", start);
$("stop").addEventListener("click", stop);
$("device").addEventListener("change", () => { if (call) { stop(); start(); } });
for (const id of ["split", "enabled", "strength", "steps"]) $(id).addEventListener("input", controlSoon);
addEventListener("resize", controlSoon);
addEventListener("pagehide", stop);
