"use strict";
const $ = (id) => document.getElementById(id);

// make("td.number", "12") is <td class="number">12</td>; text is only ever text.
function make(kind, ...children) {
  const [tag, ...classes] = kind.split(".");
  const node = document.createElement(tag);
  node.className = classes.join(" ");
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const percent = (share, digits = 1) => share === null || share === undefined ? "–" : `${(100 * share).toFixed(digits)} %`;

// Ask the server; a wrong or missing token is asked for, once for all questions that wait for it.
let asking = null;
async function ask(path, options = {}) {
  for (;;) {
    const token = sessionStorage.getItem("token");
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const response = await fetch(path, { ...options, headers });
    if (response.status === 401) {
      asking = asking || askForToken().finally(() => { asking = null; });
      await asking;
      continue;
    }
    const body = await response.json().catch(() => ({ detail: `The server answered ${response.status}` }));
    if (!response.ok) throw new Error(body.detail);
    return body;
  }
}

function askForToken() {
  $("token").hidden = false;
  $("token-field").focus();
  return new Promise((resolve) => {
    $("token").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem("token", $("token-field").value.trim());
      $("token").hidden = true;
      resolve();
    };
  });
}
