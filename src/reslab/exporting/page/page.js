"use strict";
const TOP = 5, SHOWN = 800;  // classes; pixels of the longer side
const $ = (id) => document.getElementById(id);
const known = JSON.parse($("known").textContent);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const answers = [];  // the answer for each picture, in order

// Each character of the page's parts holds 15 bits of a compressed file.
async function unpack(id) {
  const text = $(id).textContent, bytes = new Uint8Array(Number($(id).dataset.size));
  let held = 0, bits = 0, at = 0;
  for (let place = 0; place < text.length; place++) {
    held = held << 15 | text.charCodeAt(place) - 0x3400;
    for (bits += 15; bits >= 8 && at < bytes.length; at++) bytes[at] = held >> (bits -= 8);
    held &= (1 << bits) - 1;
  }
  $(id).remove();
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

const asScript = (code) => URL.createObjectURL(new Blob([code], { type: "text/javascript" }));

async function open() {
  const ort = await import(asScript(await unpack("runtime")));
  ort.env.wasm.numThreads = 1;
  // The loader would look for the WebAssembly file next to itself, but there is no such place here.
  const loader = asScript(await unpack("loader"));
  ort.env.wasm.wasmPaths = { mjs: asScript(`import load from "${loader}";
    export default (options) => load({ ...options, locateFile: (name) => name });`) };
  ort.env.wasm.wasmBinary = await unpack("wasm");
  const session = await ort.InferenceSession.create(new Uint8Array(await unpack("model")));
  return { ort, session };
}

// A browser keeps the upper 8 of 16 bits, which is nearly nothing of pictures with a white far below 65535, such as 4095.
async function check(file) {
  const head = new Uint8Array(await file.slice(0, 26).arrayBuffer());
  const isDeep = head[1] === 0x50 && head[2] === 0x4e && head[24] === 16, isGrey = head[25] === 0;  // of a PNG
  if (isDeep && isGrey && known.white !== 65535) {
    throw new Error("a browser reads only the upper 8 of its 16 bits; use reslab predict");
  }
  return isDeep && !isGrey;
}

// The pixels as stored in the file: no colour profile is applied, and transparent parts are put on white. Only a small
// copy is kept to be shown.
async function read(file) {
  const image = await createImageBitmap(file, { colorSpaceConversion: "none", imageOrientation: "from-image" });
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  const paper = canvas.getContext("2d", { willReadFrequently: true });
  paper.fillStyle = "white";
  paper.fillRect(0, 0, image.width, image.height);
  paper.drawImage(image, 0, 0);
  const { data } = paper.getImageData(0, 0, image.width, image.height), pixels = new Uint8Array(3 * data.length / 4);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    pixels[to++] = data[from];
    pixels[to++] = data[from + 1];
    pixels[to++] = data[from + 2];
  }
  const preview = document.createElement("canvas"), scale = Math.min(1, SHOWN / Math.max(image.width, image.height));
  preview.width = Math.max(1, Math.round(image.width * scale));
  preview.height = Math.max(1, Math.round(image.height * scale));
  preview.getContext("2d").drawImage(canvas, 0, 0, preview.width, preview.height);
  const size = [image.height, image.width];
  image.close();
  canvas.width = canvas.height = 0;  // frees its memory now
  return { pixels, size, preview };
}

const opened = open();
opened.then(() => { $("state").textContent = "Ready. Nothing leaves this device."; },
  (error) => { $("state").textContent = `This browser cannot run the network: ${error.message}`; });

async function classify(file) {
  const card = document.createElement("article");
  card.append(Object.assign(document.createElement("h2"), { textContent: file.name || "Pasted picture" }));
  $("results").prepend(card);
  try {
    const { ort, session } = await opened;
    const isDeepColour = await check(file), { pixels, size, preview } = await read(file);
    if (isDeepColour && pixels.every((value) => value < 16)) {
      throw new Error("it has 16 bits of colour, of which the upper four are never used; save it with 8");
    }
    const images = new ort.Tensor("uint8", pixels, [1, ...size, 3]);
    const { probabilities, familiarity } = await session.run({ images });
    const answer = { file: file.name, probabilities: [...probabilities.data], familiarity: familiarity?.data[0] };
    answers.push(answer);
    card.append(preview, show(answer));
  } catch (error) {
    answers.push({ file: file.name, error: error.message });
    card.append(Object.assign(document.createElement("p"), { textContent: `This picture cannot be read: ${error.message}` }));
  }
}

function show({ probabilities, familiarity }) {
  const list = document.createElement("ol");
  const order = probabilities.map((_, place) => place).sort((a, b) => probabilities[b] - probabilities[a]);
  for (const place of order.slice(0, TOP)) {
    const line = document.createElement("li"), bar = document.createElement("i");
    bar.style.width = percent(probabilities[place]);
    line.append(bar, known.classes[place], Object.assign(document.createElement("b"), { textContent: percent(probabilities[place]) }));
    list.append(line);
  }
  if (familiarity !== undefined && familiarity <= known.threshold + 1e-6) {
    list.prepend(Object.assign(document.createElement("p"), { textContent: "Unlike the training pictures: only a guess." }));
  }
  return list;
}

// One after another: a large picture takes a lot of memory.
let last = Promise.resolve();
const add = (files) => { for (const file of files) last = last.then(() => classify(file)); };

for (const id of ["files", "photo"]) $(id).onchange = (event) => { add([...event.target.files]); event.target.value = ""; };
$("choose").onclick = () => $("files").click();
$("camera").onclick = () => $("photo").click();
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => { event.preventDefault(); add(event.dataTransfer.files); };
document.onpaste = (event) => add(event.clipboardData.files);
