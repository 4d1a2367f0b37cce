// Shows the screen that the address is for. `path` is where its websocket is, as in noVNC's own pages.
const said = document.getElementById("status");
const keys = document.getElementById("keys");
const path = new URLSearchParams(location.search).get("path") ?? "";

async function begin() {
  let rfb;
  try {
    rfb = await import("./novnc/core/rfb.js");
  } catch {
    said.textContent =
      "noVNC is not installed where this cloud runs. `haneul up --packages-only` fetches it; then load this page again.";
    return;
  }
  const where = new URL("/" + path.replace(/^\/+/, ""), location.href);
  where.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const screen = new rfb.default(document.getElementById("screen"), where.href, { shared: true, wsProtocols: ["binary"] });
  screen.scaleViewport = true;
  screen.addEventListener("connect", () => {
    said.textContent = "Connected";
    keys.disabled = false;
    screen.focus();
  });
  screen.addEventListener("desktopname", (e) => { document.title = e.detail.name + " - Console"; });
  screen.addEventListener("disconnect", (e) => {
    keys.disabled = true;
    said.textContent = e.detail.clean
      ? "The console was closed. Its address opens it once: ask for a new one."
      : "There is no console at this address: it was used already, is too old, or the server does not run. Ask for a new one.";
  });
  keys.addEventListener("click", () => { screen.sendCtrlAltDel(); screen.focus(); });
}

begin();
