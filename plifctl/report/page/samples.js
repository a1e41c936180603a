// Viewer of recorded samples: input frames, spikes and firing rates of a channel, and firing rates of the classes.

const viewer = { shown: null, run: null, recording: 0, sample: 0, layer: 0, channel: 0, t: 0, timer: null };

function drawViewer() {
  stop();
  if (!byId("samples").open) return;
  const recorded = data.runs.filter((run) => run.spikes);
  if (!recorded.length) {
    byId("viewer").replaceChildren(el("p", { class: "empty" }, "No recorded spikes. To record some: plifctl eval RUN --record-spikes 10"));
    return;
  }
  const at = recorded.findIndex((run) => run.name === viewer.run);
  if (at >= 0) viewer.recording = at;  // a later run may have come before it
  clamp("recording", recorded.length);
  viewer.run = recorded[viewer.recording].name;
  const { spikes } = recorded[viewer.recording];
  withParts([spikes], () => {
    if (parts.has(spikes) && recorded[viewer.recording]?.spikes === spikes) drawRecording(parts.get(spikes), recorded);
  });
}

const clamp = (name, size) => { viewer[name] = Math.min(viewer[name], size - 1); };

function drawRecording(recording, recorded) {
  viewer.shown = recording;
  const box = byId("viewer");
  clamp("sample", recording.ids.length);
  clamp("layer", recording.layers.length);
  clamp("t", recording.T);
  const layer = recording.layers[viewer.layer];
  clamp("channel", layer?.channels.length ?? 1);
  const choice = (label, name, texts) => el("label", {}, `${label} `, el("select", { "data-choice": name, onchange: (event) => {
    viewer[name] = event.target.selectedIndex;
    if (name === "recording") viewer.run = event.target.value;
    drawViewer();
    byId("viewer").querySelector(`[data-choice="${name}"]`)?.focus();
  } }, texts.map((text, i) => el("option", { value: text, selected: i === viewer[name] }, text))));
  const slider = el("input", { id: "time", type: "range", min: 0, max: recording.T - 1, value: viewer.t, oninput: (event) => show(Number(event.target.value)) });
  box.replaceChildren(
    el("div", { class: "controls viewer-controls" },
      choice("Run", "recording", recorded.map((run) => run.name)),
      choice("Sample", "sample", recording.ids.map((id, i) => `${recording.classes[recording.labels[i]]} (${id})${recording.empty[i] ? ", no events" : ""}`)),
      layer ? choice("Layer", "layer", recording.layers.map((entry) => entry.name)) : null,
      layer ? choice("Channel", "channel", layer.channels.map(String)) : null),
    el("div", { class: "controls viewer-controls" },
      el("button", { type: "button", id: "play", onclick: play }, "Play"),
      el("button", { type: "button", id: "back", "aria-label": "Previous step", onclick: () => show(viewer.t - 1) }, "◀"),
      el("button", { type: "button", id: "forward", "aria-label": "Next step", onclick: () => show(viewer.t + 1) }, "▶"),
      el("label", {}, "t ", slider, " ", el("output", { id: "now" }))),
    el("div", { class: "pictures" },
      pictureOf("input", "Input"), layer ? pictureOf("spikes", "Spikes") : null, layer ? pictureOf("rates", "Firing rate so far") : null,
      el("div", {}, el("h3", {}, "Firing rates of the classes so far"), el("table", { id: "votes" }))),
    el("p", { class: "source" }, recording.saved_after ? `Weights: ${recording.saved_after}. ` : "", recording.empty[viewer.sample] ? "This sample contains no events: an empty input with a label. " : "",
      recording.left_out ? `The run has ${recording.left_out} more samples. ` : "",
      layer && layer.of > layer.channels.length ? `Shown: the ${layer.channels.length} most active of ${layer.of} channels.` : ""));
  show(viewer.t);
}

function pictureOf(id, title) {
  return el("figure", {}, el("h3", {}, title), el("canvas", { id, role: "img", "aria-label": title }));
}

function show(t) {
  const recording = viewer.shown;
  viewer.t = ((t % recording.T) + recording.T) % recording.T;
  byId("time").value = viewer.t;
  byId("now").textContent = `${viewer.t} of ${recording.T - 1}`;
  const [, steps, height, width] = recording.input.shape;
  recording.pixels ??= bytesOf(recording.input.bytes);
  const frame = (viewer.sample * steps + Math.min(viewer.t, steps - 1)) * height * width;
  paint("input", width, height, (i) => recording.pixels[frame + i]);
  const layer = recording.layers[viewer.layer];
  if (layer) showSpikes(layer);
  const votes = recording.votes[viewer.sample].slice(0, viewer.t + 1);
  const sums = recording.classes.map((_, c) => votes.reduce((sum, row) => sum + row[c], 0) / votes.length);
  const compared = sums.map((sum) => Math.round(1e4 * votes.length * sum)), highest = compared.indexOf(Math.max(...compared));  // as predict() does
  byId("votes").replaceChildren(el("tbody", {}, recording.classes.map((name, c) => el("tr", {},
    el("th", { scope: "row" }, name, c === recording.labels[viewer.sample] ? " (true class)" : "", c === highest ? " ← predicted" : ""),
    el("td", {}, el("meter", { min: 0, max: 1, value: sums[c], "aria-label": name })),
    el("td", { class: "number" }, sums[c].toFixed(2))))));
}

function showSpikes(layer) {
  layer.packed ??= bytesOf(layer.bits);
  const [, steps, channels, height, width] = layer.shape;
  const bit = (t, i) => {
    const at = (((viewer.sample * steps + t) * channels + viewer.channel) * height * width) + i;
    return (layer.packed[at >> 3] >> (7 - (at & 7))) & 1;
  };
  paint("spikes", width, height, (i) => 255 * bit(viewer.t, i));
  paint("rates", width, height, (i) => {
    let count = 0;
    for (let t = 0; t <= viewer.t; t += 1) count += bit(t, i);
    return Math.round((255 * count) / (viewer.t + 1));
  });
}

function paint(id, width, height, grey) {
  const canvas = byId(id);
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i += 1) image.data.set([grey(i), grey(i), grey(i), 255], 4 * i);
  canvas.getContext("2d", { willReadFrequently: true }).putImageData(image, 0, 0);
}

function play() {
  if (viewer.timer !== null) return stop();
  byId("play").textContent = "Pause";
  viewer.timer = setInterval(() => show(viewer.t + 1), 300);
}

function stop() {
  clearInterval(viewer.timer);
  viewer.timer = null;
  if (byId("play")) byId("play").textContent = "Play";
}
