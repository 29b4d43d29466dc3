// The page: choose a model, give a song, watch, and listen to its stems.

import { Mixer } from "./mixer.js";
import { ServerError, getDemoSong, getModels, separate, setToken } from "./server.js";
import { decode } from "./wav.js";
import { readZip } from "./zip.js";

const TELLING = {
  sending: "is being sent", waiting: "waits for its turn", checking: "is being read",
  separating: "is being separated", done: "is being fetched", opening: "is being opened",
};
const $ = (id) => document.getElementById(id);

let models = [], mixer = null, aborter = null, retry = null;

async function showModels() {
  models = await getModels();
  $("model").replaceChildren(...models.map((model) => new Option(model.name, model.name)));
  $("model").disabled = !models.length;
  $("demo").disabled = !models.length;
  showFacts();
  if (!models.length) throw new Error("no model is loaded; train one, and it will be here");
}

function showFacts() {
  const model = models.find((found) => found.name === $("model").value);
  if (!model) return;
  const better = model.metrics?.val_mse && model.baselines?.silence?.val_mse
    ? `${(10 * Math.log10(model.baselines.silence.val_mse / model.metrics.val_mse)).toFixed(1)} dB below silence` : "";
  const facts = {
    depth: model.depth,
    family: model.family,
    stems: model.sources.join(", "),
    rate: `${(model.sample_rate / 1000).toLocaleString("en")} kHz`,
    val_mse: model.metrics?.val_mse && `${model.metrics.val_mse.toPrecision(3)}${better && `, ${better}`}`,
    "SI-SDR": model.metrics?.val_si_sdr !== undefined && `${model.metrics.val_si_sdr.toFixed(1)} dB`,
    parameters: model.costs?.parameters && `${(model.costs.parameters / 1e6).toFixed(2)} M`,
    version: model.version,
  };
  $("facts").replaceChildren(...Object.entries(facts).filter(([, value]) => value).map(([name, value]) => {
    const pair = document.createElement("div");
    for (const [kind, text] of [["dt", name], ["dd", value]]) {
      pair.append(Object.assign(document.createElement(kind), { textContent: text }));
    }
    return pair;
  }));
}

/** Shows one of: where a song is chosen, how far it is, its stems. */
function show(section) {
  for (const id of ["source", "work", "player"]) $(id).hidden = id !== section;
  $("error").hidden = $("token-form").hidden = true;
}

function tell(state, share) {
  const percent = share ? ` ${Math.floor(100 * share)}%` : "";
  $("doing").textContent = `${TELLING[state] ?? state}${percent}`;
  if (share) $("progress").value = share;
  else $("progress").removeAttribute("value");
}

async function take(file, signal) {
  mixer?.close();
  show("work");
  $("song").textContent = file.name;
  tell("sending", 0);
  // A song may be dropped before the models are known.
  if (!models.length) await showModels();
  signal.throwIfAborted();
  const zip = await separate(file, $("model").value, tell, signal);
  tell("opening", 0);
  const files = await readZip(zip);
  const stems = await Promise.all([...files].map(async ([name, wav]) =>
    ({ name: name.replace(/\.wav$/, ""), file: wav, buffer: await decode(wav) })));
  signal.throwIfAborted();
  show("player");
  mixer = new Mixer(stems, file.name.replace(/\.[^.]*$/, ""), zip);
  // For whoever looks inside with the browser's tools.
  window.sepnet = { mixer };
  $("play").focus();
}

/** Runs something that can be stopped, and shows what goes wrong in it. */
async function attempt(action) {
  aborter = new AbortController();
  const { signal } = aborter;
  try {
    await action(signal);
  } catch (error) {
    // What was stopped has left the page already, perhaps to another song.
    if (signal.aborted) return;
    if (!$("work").hidden) show("source");
    if (error instanceof ServerError && error.status === 401) {
      retry = action;
      $("token-form").hidden = false;
      $("token").focus();
      return;
    }
    $("error").textContent = error.message;
    $("error").hidden = false;
  }
}

$("model").addEventListener("change", showFacts);
$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  $("file").value = "";
  if (file) attempt((signal) => take(file, signal));
});
$("drop").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" && event.key !== " ") return;
  event.preventDefault();
  $("file").click();
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  // Anywhere on the page: a song dropped beside the field would else replace the page.
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    const [file] = event.dataTransfer?.files ?? [];
    if (kind === "drop" && file && $("work").hidden) attempt((signal) => take(file, signal));
  });
}
$("demo").addEventListener("click", () => attempt(async (signal) => {
  show("work");
  $("song").textContent = "The demo song";
  tell("is being made", 0);
  await take(await getDemoSong(signal), signal);
}));
$("cancel").addEventListener("click", () => {
  aborter.abort();
  show("source");
});
$("another").addEventListener("click", () => {
  mixer?.player.pause();
  show("source");
});
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken($("token").value);
  $("token-form").hidden = true;
  attempt(async (signal) => {
    if (!models.length) await showModels();
    if (retry !== showModels) await retry(signal);
  });
});

attempt(showModels);
