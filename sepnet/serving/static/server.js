// What the page asks the server: models, the demo song, stems and their progress.

const POLL_MILLISECONDS = 300;

/** An answer that is an error; `status` is HTTP's. */
export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function setToken(token) {
  sessionStorage.setItem("token", token);
}

function headers() {
  const token = sessionStorage.getItem("token");
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function get(path, signal) {
  const answer = await fetch(path, { headers: headers(), signal });
  if (!answer.ok) throw await errorOf(answer.status, answer);
  return answer;
}

async function errorOf(status, body) {
  const text = await body.text();
  try {
    return new ServerError(status, JSON.parse(text).error);
  } catch {
    return new ServerError(status, `the server answered ${status}`);
  }
}

export async function getModels() {
  return (await get("models")).json();
}

export async function getDemoSong(signal) {
  const answer = await get("demo-song", signal);
  const [, name] = /filename="(.*)"/.exec(answer.headers.get("content-disposition") ?? "") ?? [];
  return new File([await answer.blob()], name ?? "demo song.wav", { type: "audio/wav" });
}

/**
 * Sends a song and receives the ZIP of its stems.
 * @param {File} file
 * @param {string} model
 * @param {(state: string, share: number) => void} tell - what is going on, and how much of it is done.
 * @param {AbortSignal} signal
 * @returns {Promise<Blob>}
 */
export function separate(file, model, tell, signal) {
  const job = crypto.getRandomValues(new Uint32Array(4)).join("-");
  const query = new URLSearchParams({ model, job, name: file.name });
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    let timer = null;
    // A request that was aborted is not done, but as if it had never been sent.
    const isOver = () => signal.aborted || request.readyState === XMLHttpRequest.DONE;
    const finish = (settle, value) => {
      clearTimeout(timer);
      settle(value);
    };
    const poll = async () => {
      try {
        const progress = await (await get(`separate/jobs/${job}`)).json();
        const share = progress.seconds ? progress.seconds_done / progress.seconds : 0;
        if (!isOver()) tell(progress.state, share);
      } catch {
        // The song itself will tell what is wrong.
      }
      if (!isOver()) timer = setTimeout(poll, POLL_MILLISECONDS);
    };
    request.open("POST", `separate?${query}`);
    request.responseType = "blob";
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => tell("sending", event.loaded / event.total);
    request.upload.onload = () => { timer = setTimeout(poll, 0); };
    request.onload = async () => {
      if (request.status === 200) finish(resolve, request.response);
      else finish(reject, await errorOf(request.status, request.response));
    };
    request.onerror = () => finish(reject, new ServerError(0, "the connection to the server broke off; try again"));
    request.onabort = () => finish(reject, new DOMException("stopped", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}
