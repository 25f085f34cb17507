// Answers a form's challenge with a passkey before the form is sent; nothing else needs a script.

const status = document.getElementById("status");

for (const form of document.querySelectorAll("form[data-passkey]")) {
  form.addEventListener("submit", async (event) => {
    const answer = form.elements.namedItem("answer");
    if (answer.value) return;
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    status.textContent = "Waiting for your passkey…";
    try {
      const options = JSON.parse(form.dataset.options);
      const creates = form.dataset.passkey === "create";
      const publicKey = creates
        ? PublicKeyCredential.parseCreationOptionsFromJSON(options)
        : PublicKeyCredential.parseRequestOptionsFromJSON(options);
      const credential = await navigator.credentials[creates ? "create" : "get"]({ publicKey });
      answer.value = JSON.stringify(credential);
      status.textContent = "";
      form.submit();
    } catch (error) {
      button.disabled = false;
      status.textContent =
        error.name === "NotAllowedError"
          ? "No passkey answered. Nothing was changed."
          : `The passkey could not be used: ${error.message}`;
    }
  });
}

for (const form of document.querySelectorAll("form[data-confirm]")) {
  form.addEventListener("submit", (event) => {
    if (!confirm(form.dataset.confirm)) event.preventDefault();
  });
}

// A set-up token stands behind the #, so that it is in no log; it leaves the address bar at once.
const token = document.querySelector("[data-from-fragment]");
if (token && location.hash.length > 1) {
  token.value = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
}
