// Answers a form's challenge with a passkey before the form is sent. All else works without a script,
// and is a little more comfortable with it.

const main = document.querySelector("main");
const status = document.getElementById("status");
let busy = false;

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.confirm && !confirm(form.dataset.confirm)) event.preventDefault();
  else if (form.dataset.passkey && !form.elements.namedItem("answer").value) {
    event.preventDefault();
    ask(form);
  }
});

async function ask(form) {
  const button = form.querySelector("button");
  button.disabled = busy = true;
  status.textContent = "Waiting for your passkey…";
  try {
    const options = JSON.parse(form.dataset.options);
    const creates = form.dataset.passkey === "create";
    const publicKey = creates
      ? PublicKeyCredential.parseCreationOptionsFromJSON(options)
      : PublicKeyCredential.parseRequestOptionsFromJSON(options);
    const credential = await navigator.credentials[creates ? "create" : "get"]({ publicKey });
    form.elements.namedItem("answer").value = JSON.stringify(credential);
    status.textContent = "";
    form.submit();
  } catch (error) {
    button.disabled = busy = false;
    status.textContent =
      error.name === "NotAllowedError"
        ? "No passkey answered. Nothing was changed."
        : `The passkey could not be used: ${error.message}`;
  }
}

document.addEventListener("click", async ({ target }) => {
  const button = target.closest("[data-copy]");
  if (!button) return;
  const text = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(text.textContent);
    status.textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(text);
    status.textContent = "Selected: copy it with the keyboard.";
  }
  setTimeout(() => (status.textContent = ""), 3000);
});

// A set-up token stands behind the #, so that it is in no log; it leaves the address bar at once.
const token = document.querySelector("[data-from-fragment]");
if (token && location.hash.length > 1) {
  token.value = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
}

// A file is chosen on its form or dropped there; one that is too long is not sent.
const drop = document.querySelector("[data-drop]");
if (drop) {
  const input = drop.querySelector("input[type=file]");
  const bytesMax = Number(drop.dataset.drop);
  const check = () => {
    const tooLong = input.files[0]?.size > bytesMax;
    input.setCustomValidity(tooLong ? `The file is longer than ${bytesMax} bytes.` : "");
  };
  const over = (event) => {
    event.preventDefault();
    drop.classList.toggle("over", event.type === "dragover");
  };
  input.addEventListener("change", check);
  drop.addEventListener("dragover", over);
  drop.addEventListener("dragleave", over);
  drop.addEventListener("drop", (event) => {
    over(event);
    input.files = event.dataTransfer.files;
    check();
    if (input.files.length) drop.requestSubmit();
  });
}

// A page that says so shows what happened since, but not while somebody is in the middle of it.
let stale = false;

async function renew() {
  const within = main.contains(document.activeElement) && document.activeElement !== main;
  stale = busy || within;
  if (stale) return;
  const answer = await fetch(location.href, { headers: { "Tallystick-Live": "1" } });
  if (answer.redirected) return ended();
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  main.replaceChildren(...page.querySelector("main").childNodes);
  const nav = document.querySelector(".top nav");
  if (!nav.contains(document.activeElement)) nav.replaceWith(page.querySelector(".top nav"));
}

function ended() {
  status.textContent = "This page is not renewed any more: you were signed out. Load it again.";
}

if (main.dataset.live) {
  let waiting;
  const events = new EventSource(main.dataset.live);
  events.onmessage = () => {
    clearTimeout(waiting);
    waiting = setTimeout(renew, 300);
  };
  events.onerror = () => events.readyState === EventSource.CLOSED && ended();
  main.addEventListener("focusout", () => setTimeout(() => stale && renew()));
}
