const NEAREST = 5, SIDE = 288;  // images; pixels of a picture on its card
let model = null;

async function describe() {
  model = await ask("/v1/model");
  const names = model.runs.map((run) => run.name).join(", ");
  document.title = `${names} · reslab`;
  $("title").textContent = `${names}: what does it show?`;
  $("about").textContent = model.runs.map((run) => `Tells ${shorten(run.classes)} apart` + (run.test_accuracy ? `; ${percent(run.test_accuracy.value)} right on its test images.` : ".")).join(" ");
  $("limits").textContent = `Up to ${model.max_bytes / 2 ** 20} MB and ${model.max_pixels / 1e6} million pixels.`;
  $("runs").replaceChildren(...model.runs.map((run) => make("div",
    make("h2", run.name),
    make("p.note", [run.network, run.data && `trained on ${run.data}`].filter(Boolean).join(", ") + "."),
    run.test_accuracy && make("p.note", `Test accuracy ${percent(run.test_accuracy.value, 2)} (${percent(run.test_accuracy.low, 2)} to ${percent(run.test_accuracy.high, 2)}).`),
    make("p.note", `${run.classes.length} classes: ${shorten(run.classes)}.`),
    make(run.temperature ? "p.note" : "p.note.bad", run.calibration),
    make("p.note", run.has_neighbours ? `Nearest images: ${run.neighbours.toLowerCase()}` : run.neighbours))));
  // Training images may still be on their way into memory.
  if (model.runs.some((run) => run.neighbours.includes("being prepared"))) later();
}

const later = () => setTimeout(() => describe().catch(later), 3000);

async function offer() {
  const found = await ask("/v1/examples");
  $("try").hidden = !found.length;
  $("examples").replaceChildren(...found.map(({ name, image }) => {
    const picture = make("img"), button = make("button", picture);
    [picture.src, picture.alt, button.title] = [image, name, name];
    const bytes = Uint8Array.from(atob(image.split(",")[1]), (letter) => letter.charCodeAt(0));
    button.onclick = () => classify(new File([bytes], `${name}.png`, { type: "image/png" }));
    return button;
  }));
}

const shorten = (names) => names.length > 20 ? `${names.slice(0, 20).join(", ")} and ${names.length - 20} more` : names.join(", ");

// ---- one picture: a card that fills when the answer comes

// Of a large picture only a smaller copy is kept, and one is decoded after another: each takes a lot of memory. What the
// browser cannot draw, TIFF for one, is still classified.
let last = Promise.resolve();
const preview = (file) => last = last.then(() => createImageBitmap(file)).then(shrink).catch(() => null);

function shrink(image) {
  const scale = Math.min(1, 2 * SIDE / Math.min(image.width, image.height)), canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  image.close();
  return canvas;
}

async function request(file, heat) {
  const form = new FormData();
  form.append("files", file, file.name || "pasted.png");
  const { pictures: [picture] } = await ask(`/v1/predict?top=5&heat=${heat}&nearest=${NEAREST}`, { method: "POST", body: form });
  return picture;
}

async function classify(file) {
  const card = make("article.card.picture");
  const close = make("button", "Remove");
  close.onclick = () => { card.remove(); answered.delete(card); tidy(); };
  const status = make("p.note", "Asking …");
  card.append(make("header", make("h2", file.name || "Pasted picture"), close), status);
  $("results").prepend(card);
  tidy();
  if (model && file.size > model.max_bytes) {
    status.textContent = `The file has ${(file.size / 2 ** 20).toFixed(1)} MB: at most ${model.max_bytes / 2 ** 20} MB are allowed.`;
    status.className = "bad";
    return;
  }
  const drawn = preview(file);
  card.fill = async () => {
    try {
      const heat = $("evidence").checked, picture = await request(file, heat), image = await drawn;
      card.hasEvidence = heat;
      if (!model) await describe();
      answered.set(card, picture);
      card.replaceChildren(card.firstChild, make("div.answers", ...picture.answers.map((answer) => show(answer, image, file.name))));
      if ($("evidence").checked && !card.hasEvidence) await card.fill();
    } catch (error) {
      status.textContent = error instanceof TypeError ? "The server cannot be reached." : error.message;
      status.className = "bad";
      card.append(status);
    }
  };
  await card.fill();
}

function show(answer, image, name) {
  const run = model.runs.find((each) => each.name === answer.run);
  const canvas = make("canvas");
  canvas.width = canvas.height = SIDE;
  canvas.setAttribute("role", "img");
  const bars = make("ul.bars", ...answer.classes.map((guess) => {
    const bar = make("i");
    bar.style.width = `${100 * guess.probability}%`;
    const button = make("button", bar, make("span", guess.name), make("span.number", percent(guess.probability)));
    button.title = `The evidence for ${guess.name}`;
    button.onclick = () => {
      bars.querySelectorAll("button").forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
      canvas.redraw();
    };
    button.guess = guess;
    return make("li", button);
  }));
  canvas.redraw = () => {
    const { guess } = bars.querySelector("[aria-pressed=true]"), asked = $("evidence").checked;
    draw(canvas, image, { evidence: asked ? guess.evidence : null, resize: run.resize });
    canvas.setAttribute("aria-label", asked ? `${name}, with the evidence for ${guess.name}` : name);
  };
  bars.querySelector("button").click();
  const nearest = answer.nearest.map((found) => {
    const picture = make("img");
    picture.src = found.image;
    picture.alt = "";
    return make("figure", picture, found.name, make("br"), found.similarity.toFixed(2));
  });
  return make("div.answer", make("h3", answer.run, make("small.note", run.temperature ? "calibrated" : "not calibrated")), 
    !answer.answered && make("p.note.bad", "Unlike the training pictures: the classes below are only a guess."), canvas, bars,
    nearest.length > 0 && make("p.note.nearest", "Nearest training images, by the cosine of their features"),
    nearest.length > 0 && make("div.nearest", ...nearest));
}

// The square that the network sees: the whole picture squeezed into it, its middle, or all of it between black bars.
function drawSquare(context, image, side, resize) {
  const { width, height } = image, shorter = Math.min(width, height), scale = side / Math.max(width, height);
  if (resize === "crop") {
    context.drawImage(image, (width - shorter) / 2, (height - shorter) / 2, shorter, shorter, 0, 0, side, side);
  } else if (resize === "pad") {
    context.fillRect(0, 0, side, side);
    context.drawImage(image, (side - width * scale) / 2, (side - height * scale) / 2, width * scale, height * scale);
  } else {
    context.drawImage(image, 0, 0, side, side);
  }
}

function draw(canvas, image, { evidence, resize }) {
  const context = canvas.getContext("2d"), side = canvas.width;
  context.clearRect(0, 0, side, side);
  context.imageSmoothingEnabled = !image || image.width >= side / 4;
  context.filter = evidence ? "grayscale(1)" : "none"; // colours of the picture would drown those of the evidence
  if (image) drawSquare(context, image, side, resize);
  context.filter = "none";
  if (!evidence) return;
  const most = Math.max(...evidence.flat().map(Math.abs)) || 1;
  const small = document.createElement("canvas");
  [small.height, small.width] = [evidence.length, evidence[0].length];
  const pixels = new ImageData(small.width, small.height);
  evidence.flat().forEach((value, place) => {
    pixels.data.set(value > 0 ? [255, 120, 0] : [0, 110, 255], 4 * place);
    pixels.data[4 * place + 3] = 170 * Math.abs(value) / most;
  });
  small.getContext("2d").putImageData(pixels, 0, 0);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, side, side);
}

// ---- all pictures at once

const answered = new Map();
const tidy = () => { $("tools").hidden = !$("results").children.length; };
$("evidence").onchange = async () => {
  $("legend").hidden = !$("evidence").checked;
  document.querySelectorAll("#results canvas").forEach((canvas) => canvas.redraw());
  if (!$("evidence").checked) return;
  for (const card of [...answered.keys()]) if (answered.has(card) && !card.hasEvidence) await card.fill();
};
$("clear").onclick = () => { $("results").replaceChildren(); answered.clear(); tidy(); };
$("save").onclick = () => {
  // A cell that a spreadsheet would take for a formula begins with a quote.
  const cell = (value) => `"${String(value).replace(/^[=+@\t\r-]/, "'$&").replaceAll('"', '""')}"`;
  const rows = [...answered.values()].flatMap((picture) => picture.answers.flatMap((answer) => answer.classes.map(
    (guess, place) => [picture.name, answer.run, place + 1, guess.name, guess.probability, answer.answered])));
  const table = [["file", "run", "rank", "class", "probability", "answered"], ...rows];
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([table.map((row) => row.map(cell).join(",")).join("\r\n")], { type: "text/csv" }));
  link.download = "predictions.csv";
  link.click();
  URL.revokeObjectURL(link.href);
};

// ---- ways in: choose, drop, paste, camera

// Browsers tell the type of a file by its name, and do not know all of these.
const ENDINGS = /\.(avif|bmp|gif|hei[cf]|j2k|jp2|jpe?g|p[bgnp]m|png|tga|tiff?|webp)$/i;

function take(files) {
  const pictures = [...files].filter((file) => file.type.startsWith("image/") || ENDINGS.test(file.name));
  complain(files.length > pictures.length ? "Only pictures are taken: PNG, JPEG, JPEG 2000, WebP, AVIF, HEIF, GIF, BMP, TIFF, TGA or PPM." : "");
  pictures.forEach(classify);
}

function complain(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

$("choose").onclick = () => $("files").click();
$("files").onchange = () => { take($("files").files); $("files").value = ""; };
addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
addEventListener("drop", (event) => { event.preventDefault(); $("drop").classList.remove("over"); take(event.dataTransfer.files); });
addEventListener("paste", (event) => take(event.clipboardData.files));

$("camera").onclick = async () => {
  try {
    $("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    complain("");
    $("viewer").showModal();
  } catch {
    // Browsers open the camera on https and on this machine only.
    complain(isSecureContext ? "The camera cannot be opened: is there one, and may this page use it?" : "Browsers open the camera only over https or on this machine itself.");
  }
};
$("take").onclick = () => {
  const frame = document.createElement("canvas");
  [frame.width, frame.height] = [$("video").videoWidth, $("video").videoHeight];
  frame.getContext("2d").drawImage($("video"), 0, 0);
  $("viewer").close();
  frame.toBlob((blob) => classify(new File([blob], "Camera", { type: "image/png" })));
};
$("close").onclick = () => $("viewer").close();
$("viewer").onclose = () => { $("video").srcObject.getTracks().forEach((track) => track.stop()); $("video").srcObject = null; };

describe().then(offer).catch((error) => complain(error.message));
