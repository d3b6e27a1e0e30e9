// The try page: shows what the WebSocket says about the door and the phone, and sends what is pressed.

const $ = (id) => document.getElementById(id);
const sides = { door: null, phone: null }; // the last `state` of each
const MAX_ROWS = 400;

history.replaceState(null, "", "/"); // the token is in a cookie now, and out of sight

// --- The connection -----------------------------------------------------------------------------

let socket = null;
let wait = 500; // ms until the next try
let live = false; // false while the past is told again
let lastId = 0;

function connect() {
  socket = new WebSocket(`ws://${location.host}/socket`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    wait = 500;
    live = false;
    clearLadder();
    listen();
  };
  socket.onmessage = ({ data }) => {
    if (typeof data === "string") receive(JSON.parse(data));
    else play(data);
  };
  socket.onclose = () => {
    socket = null;
    sides.door = sides.phone = null;
    render();
    setTimeout(connect, wait);
    wait = Math.min(wait * 2, 5000);
  };
}

function receive(message) {
  switch (message.kind) {
    case "state":
    case "gone":
      stateChanged(message.side, message.kind === "gone" ? null : message);
      break;
    case "ready":
      live = true;
      break;
    case "sip":
      if (message.side === "door") sipSeen(message); // the phone saw the same message
      break;
    case "record":
      if (message.side === "door") recordSeen(message);
      break;
    case "levels":
      if (message.side === "door") {
        showLevel($("microphone-level"), message.microphone_db);
        showLevel($("speaker-level"), message.speaker_db);
      }
      break;
    case "gap":
      if (message.side === "door") note(`${message.lost} events were lost`, "fault");
      break;
    case "sound":
      rate = message.rate;
      break;
    case "reply":
      if (message.error) complain(message.error);
  }
}

function send(side, command, args = {}) {
  if (!socket || socket.readyState !== WebSocket.OPEN) return;
  lastId += 1;
  socket.send(JSON.stringify({ id: lastId, side, command, args }));
}

let noticeTimer = 0;
function complain(text) {
  $("notice").textContent = text;
  $("notice").hidden = false;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => ($("notice").hidden = true), 6000);
}

// --- Door and phone -----------------------------------------------------------------------------

const LED_WORDS = {
  off: "off", idle: "ready", registering: "registering", ringing: "ringing", in_call: "in a call",
  door_open: "door open", fault: "fault",
};
let connectedSince = 0; // as Date.now() tells time; 0: nobody talks

const only = (map) => Object.values(map ?? {})[0];
const LIVE = new Set(["calling", "ringing", "connected", "held"]); // one that ends is none any more
const callOf = (side) => sides[side]?.calls?.find((call) => LIVE.has(call.state)) ?? null;

function peerName(peer) {
  const display = /^\s*"([^"]+)"|^\s*([^"<]+?)\s*</.exec(peer ?? "");
  const uri = /sips?:(?:([^@;>]+)@)?([^;>]+)/.exec(peer ?? "");
  const name = display?.[1] || display?.[2] || uri?.[1] || uri?.[2] || peer || "Somebody";
  return name === "door" ? "Front door" : name;
}

const isRinging = () => callOf("phone")?.direction === "in" && callOf("phone").state === "ringing";
const isOpen = () => Boolean(only(sides.door?.relays)?.on);

function stateChanged(side, state) {
  const before = callOf("door")?.state;
  const [rang, wasOpen] = [isRinging(), isOpen()];
  sides[side] = state;
  const now = callOf("door")?.state;
  if (side === "door" && live && now === "connected" && before !== "connected") {
    const codec = callOf("door").codec;
    // Sound flows from the 200 on; in the picture it reads better below the ACK, which comes next.
    setTimeout(() => note(`Sound both ways${codec ? ", " + codec : ""}`, "sound"), 100);
  }
  render();
  // On a small screen the phone lies below the door, and what happens there would be missed.
  if (live && isRinging() && !rang) $("keypad").scrollIntoView({ block: "nearest" });
  if (live && isOpen() && !wasOpen) $("relay-lamp").scrollIntoView({ block: "nearest" });
}

function render() {
  const { door, phone } = sides;
  const connection = $("connection");
  const missing = !socket ? "Connection lost, trying again…"
    : !door ? "The door is not running" : !phone ? "The phone is not running" : "";
  connection.dataset.state = missing ? "lost" : "up";
  connection.textContent = missing || "Running";
  renderDoor(door, callOf("door"));
  renderPhone(phone, callOf("phone"));
}

function renderDoor(door, call) {
  const pattern = only(door?.leds)?.pattern ?? "off";
  const led = $("door-led");
  led.dataset.pattern = pattern;
  led.setAttribute("aria-label", `LED: ${LED_WORDS[pattern] ?? pattern}`);
  $("call-button").disabled = !door;
  setText("door-state", {
    calling: "Calling…",
    ringing: call?.direction === "in" ? "Being called" : "Ringing indoors…",
    connected: "Please speak",
    held: "On hold",
  }[call?.state] ?? (door ? "Press to ring" : "Off"));

  const relay = only(door?.relays);
  const on = isOpen();
  $("relay-lamp").dataset.on = String(on);
  $("relay-lamp").setAttribute("aria-label", on ? "Relay: on, door open" : "Relay: off, door locked");
  setText("relay-text", on ? "Open" : "Locked");
  const pulses = relay?.pulses ?? 0;
  setText("relay-pulses", pulses ? `Opened ${pulses === 1 ? "once" : pulses + " times"}` : "Relay not used yet");
  if (!call) {
    showLevel($("microphone-level"), -60);
    showLevel($("speaker-level"), -60);
  }
}

function renderPhone(phone, call) {
  const incoming = isRinging();
  const talking = call?.state === "connected" || call?.state === "held";
  $("screen").dataset.state = incoming ? "ringing" : talking ? "talking" : call ? "calling" : phone ? "idle" : "off";
  const name = peerName(call?.peer);
  setText("phone-state", incoming ? `${name} is ringing` : talking ? `Talking to ${name}`
    : call ? `Calling ${name}` : phone ? "Ready" : "Off");
  $("answer").disabled = $("decline").disabled = !incoming;
  $("hangup").disabled = !call || incoming;
  for (const key of $("keypad").children) key.disabled = !talking;
  if (talking && !connectedSince) connectedSince = Date.now();
  if (!talking) {
    connectedSince = 0;
    setText("digits", "");
  }
  renderDetail();
}

function renderDetail() {
  const call = callOf("phone");
  let text = call ? "" : sides.phone ? "Nobody at the door" : "";
  if (connectedSince) {
    const seconds = Math.floor(Math.max(0, Date.now() - connectedSince) / 1000);
    const clock = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    const encrypted = call.encryption && "encrypted";
    text = [call.state === "held" ? "on hold" : clock, call.codec, encrypted].filter(Boolean).join(" · ");
  } else if (call) {
    text = call.direction === "in" ? "Answer to speak with the visitor" : "";
  }
  setText("phone-detail", text);
}
setInterval(() => connectedSince && renderDetail(), 500);

function setText(id, text) {
  const element = $(id); // live regions speak at every change of their text: only at real ones
  if (element.textContent !== text) element.textContent = text;
}

function showLevel(meter, decibels) {
  const level = Math.max(-60, Math.min(0, decibels ?? -60));
  meter.setAttribute("aria-valuenow", level.toFixed(0));
  meter.firstElementChild.style.clipPath = `inset(0 ${(-level / 60) * 100}% 0 0)`;
}

// --- What can be pressed ------------------------------------------------------------------------

$("call-button").onclick = () => send("door", "press", { name: Object.keys(sides.door?.buttons ?? {})[0] ?? "call" });
$("answer").onclick = () => send("phone", "answer");
$("decline").onclick = () => send("phone", "reject", { code: 603 });
$("hangup").onclick = () => send("phone", "hangup");

const LETTERS = { 2: "ABC", 3: "DEF", 4: "GHI", 5: "JKL", 6: "MNO", 7: "PQRS", 8: "TUV", 9: "WXYZ" };
const NAMES = { "*": "star", "#": "hash" };
for (const digit of "123456789*0#") {
  const key = document.createElement("button");
  key.type = "button";
  key.id = `key-${NAMES[digit] ?? digit}`;
  key.disabled = true;
  key.setAttribute("aria-label", NAMES[digit] ?? digit);
  key.append(digit, Object.assign(document.createElement("small"), { textContent: LETTERS[digit] ?? "" }));
  key.onclick = () => {
    setText("digits", ($("digits").textContent + digit).slice(-12));
    send("phone", "dtmf", { digits: digit });
  };
  $("keypad").append(key);
}
document.addEventListener("keydown", ({ key, repeat, ctrlKey, altKey, metaKey }) => {
  if (repeat || ctrlKey || altKey || metaKey || !/^[0-9*#]$/.test(key)) return;
  $(`key-${NAMES[key] ?? key}`).click();
});

// --- The ladder ---------------------------------------------------------------------------------

const ladder = $("ladder");
const scroller = $("scroll");
let callId = "";
let began = 0; // `at` of the first message of this call
let previous = null;

function clearLadder() {
  ladder.replaceChildren();
  callId = "";
  previous = null;
  $("nothing").hidden = false;
}

function header(text, name) {
  return new RegExp(`^${name}[ \\t]*:[ \\t]*(.*)$`, "im").exec(text)?.[1].trim() ?? "";
}

function append(item) {
  const atEnd = scroller.scrollTop + scroller.clientHeight > scroller.scrollHeight - 40;
  $("nothing").hidden = true;
  if (live) item.classList.add("new");
  ladder.append(item);
  while (ladder.children.length > MAX_ROWS) ladder.firstChild.remove();
  if (atEnd) scroller.scrollTop = scroller.scrollHeight;
}

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

function note(text, className = "") {
  append(make("li", `note ${className}`, text));
}

function sipSeen(message) {
  const id = header(message.text, "(?:Call-ID|i)");
  if (id !== callId) {
    callId = id;
    began = message.at;
    previous = null;
  }
  const response = /^SIP\/2\.0 (\d{3}) ?(.*)$/.exec(message.first_line);
  const method = /^\d+ +(\S+)/.exec(header(message.text, "CSeq"))?.[1] ?? "";
  const kind = response ? { 1: "progress", 2: "success" }[response[1][0]] ?? "failure" : "request";
  const title = response ? `${response[1]} ${response[2]}` : message.first_line.split(" ")[0];
  const again = previous === message.direction + message.text;
  previous = message.direction + message.text;
  const extras = [];
  if (response && method) extras.push(method);
  if (/^(?:Content-Type|c)[ \t]*:[ \t]*application\/sdp/im.test(message.text)) extras.push("SDP");
  if (again) extras.push("again");

  const item = make("li", `message ${message.direction} ${kind}`);
  const row = make("button", "row");
  row.type = "button";
  row.setAttribute("aria-expanded", "false");
  const label = make("span", "label", title);
  for (const extra of extras) label.append(" ", make("small", "", extra));
  row.append(
    make("time", "", `${(message.at - began).toFixed(3)}`),
    label,
    make("span", "unseen", message.direction === "sent" ? "from door to phone" : "from phone to door"),
    make("i", "arrow"),
  );
  row.onclick = () => {
    const open = row.getAttribute("aria-expanded") !== "true";
    row.setAttribute("aria-expanded", String(open));
    if (!open) {
      item.lastChild.remove();
      return;
    }
    const whole = make("div", "whole");
    whole.append(
      make("p", "", `${message.direction} by ${message.transport}, ${message.direction === "sent" ? "to" : "from"} ${message.remote}`),
      make("pre", "", message.text.trimEnd()),
    );
    item.append(whole);
    whole.scrollIntoView({ block: "nearest" });
  };
  item.append(row);
  append(item);
}

const CODE_REFUSED = { wrong_code: "Wrong code", locked_out: "Codes count for nothing now" };
const CALL_FAILED = { no_answer: "Nobody answers", declined: "Declined", busy: "Busy" };

function recordSeen(record) {
  switch (record.event) {
    case "press":
      note("Bell pressed", "press");
      if (live) scroller.scrollTop = scroller.scrollHeight; // whatever of an older call is read
      break;
    case "answered": // for a page that comes in the middle of a call
      if (connectedSince && record.rule !== "too_late") connectedSince = Date.parse(record.at);
      break;
    case "digit":
      note(`Digit heard${record.source ? `, by ${record.source.toUpperCase().replace("RFC", "RFC ")}` : ""}`);
      break;
    case "release":
      note(`Relay on for ${record.seconds} s`, "release");
      break;
    case "lock_out":
      note(`Too many wrong codes: locked for ${record.seconds} s`, "fault");
      break;
    case "code":
      if (!record.allowed) note(CODE_REFUSED[record.rule] ?? "Code refused", "fault");
      break;
    case "call_failed":
      note(CALL_FAILED[record.rule] ?? "No connection", "fault");
  }
}

// --- Listening: each piece of sound is placed right behind the one before -------------------------

const LEAD = 0.08; // seconds of sound ahead of the loudspeaker: what the network's jitter may take
let rate = 8000;
let audio = null;
let next = 0;

function listen() {
  const side = document.querySelector('input[name="listen"]:checked').value || null;
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ listen: side }));
  if (!side && audio) {
    audio.close();
    audio = null;
  }
}
for (const choice of document.querySelectorAll('input[name="listen"]')) choice.onchange = listen;

function play(data) {
  if (!document.querySelector('input[name="listen"]:checked').value) return;
  if (audio?.sampleRate !== rate) {
    audio?.close();
    audio = new AudioContext({ sampleRate: rate, latencyHint: "interactive" });
    next = 0;
  }
  const samples = new Int16Array(data);
  const buffer = audio.createBuffer(1, samples.length, rate);
  buffer.copyToChannel(Float32Array.from(samples, (sample) => sample / 32768), 0);
  if (next < audio.currentTime + 0.005) next = audio.currentTime + LEAD;
  if (next > audio.currentTime + 0.4) return; // far behind: leave out until it has caught up
  const source = audio.createBufferSource();
  source.buffer = buffer;
  source.connect(audio.destination);
  source.start(next);
  next += buffer.duration;
}

connect();
