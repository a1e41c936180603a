// Numbers of runs: packed series, curves of a run, mean and standard deviation over the runs of a setting.

const NO_VALUE = 65535;
const PATIENCE = 60_000;      // ms that the server has for a reply; through a tunnel that broke, none would ever come
const parts = new Map();      // curves and spikes by their digest
const fetched = new Map();    // of those on their way: promises by digest
const curves = new WeakMap();  // of each part: curves by packed series

const isNumber = (value) => value !== null && value !== undefined && !Number.isNaN(value);
const bytesOf = (text) => {
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = binary.charCodeAt(i);
  return bytes;
};

/** Calls `then` when all parts are here: a file has an element for each, a live page fetches those it lacks. */
function withParts(digests, then) {
  const missing = digests.filter((digest) => digest && !parts.has(digest));
  if (!isLive) {
    for (const digest of missing) {
      const embedded = byId(`part-${digest}`);
      if (embedded) parts.set(digest, JSON.parse(embedded.textContent));
    }
  }
  if (!isLive || !missing.length) then();
  else {
    for (const digest of missing) if (!fetched.has(digest)) fetched.set(digest, fetchPart(digest));
    Promise.all(missing.map((digest) => fetched.get(digest))).then(then);
  }
}

/** Fetches a part; what could not be fetched is not drawn, and the next polls try again. */
async function fetchPart(digest) {
  try {
    const reply = await fetch(`parts/${digest}`, { signal: AbortSignal.timeout(PATIENCE) });
    if (reply.ok) parts.set(digest, await reply.json());
  } catch {
    // the server is gone, or takes too long
  } finally {
    fetched.delete(digest);
  }
}

/** Values of a series that `pack_series` packed; NaN where there is none. */
function unpack(packed, count) {
  if (typeof packed === "number") return new Float64Array(count).fill(packed);
  const [low, high, text] = packed, numbers = new Uint16Array(bytesOf(text).buffer), step = (high - low) / (NO_VALUE - 1);
  const values = new Float64Array(numbers.length);
  for (let i = 0; i < values.length; i += 1) values[i] = numbers[i] === NO_VALUE ? NaN : low + numbers[i] * step;
  return values;
}

/** Epochs and values of a curve without its gaps, or null; `read` takes the packed series from the run's part. */
function curveOf(run, read) {
  const part = parts.get(run.curve), packed = part && read(part);
  if (!isNumber(packed)) return null;
  if (!curves.has(part)) curves.set(part, new Map());
  const known = curves.get(part);
  if (!known.has(packed)) known.set(packed, withoutGaps(part.epochs, packed));
  return known.get(packed);
}

function withoutGaps(epochs, packed) {
  const logged = typeof epochs === "number" ? null : epochs;
  const values = unpack(packed, logged ? logged.length : epochs), curve = { epochs: [], values: [] };
  for (let i = 0; i < values.length; i += 1) {
    if (Number.isNaN(values[i])) continue;
    curve.epochs.push(logged ? logged[i] : i + 1);
    curve.values.push(values[i]);
  }
  return curve.epochs.length ? curve : null;
}

/** At each epoch, the mean of the logged epochs of the window that ends there. */
function movingAverage({ epochs, values }, window) {
  let sum = 0, first = 0;
  return { epochs, values: values.map((value, i) => {
    sum += value;
    while (epochs[first] <= epochs[i] - window) sum -= values[first++];
    return sum / (i - first + 1);
  }) };
}

/** Mean, standard deviation (of two runs or more) and number of runs at each epoch up to `last` that a run has. */
function summarize(curves, last = Infinity) {
  const size = 1 + Math.min(last, Math.max(0, ...curves.map((curve) => curve.epochs.at(-1))));
  const counts = new Uint32Array(size), means = new Float64Array(size), squares = new Float64Array(size);
  for (const { epochs, values } of curves) {
    for (let i = 0; i < epochs.length && epochs[i] < size; i += 1) { // Welford's update
      const epoch = epochs[i], change = values[i] - means[epoch];
      counts[epoch] += 1;
      means[epoch] += change / counts[epoch];
      squares[epoch] += change * (values[i] - means[epoch]);
    }
  }
  const found = { epochs: [], mean: [], std: [], counts: [] };
  for (let epoch = 1; epoch < size; epoch += 1) {
    if (!counts[epoch]) continue;
    found.epochs.push(epoch);
    found.mean.push(means[epoch]);
    found.std.push(counts[epoch] > 1 ? Math.sqrt(squares[epoch] / (counts[epoch] - 1)) : null);
    found.counts.push(counts[epoch]);
  }
  return found;
}
