// Classify pictures with an exported network, and compare with what Python answered, where the file says it.
//   npm install onnxruntime-node sharp
//   node classify.mjs model.onnx demo.json PICTURE...
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import ort from "onnxruntime-node";
import sharp from "sharp";

const [model, golden, ...pictures] = process.argv.slice(2);
const { classes, answers } = JSON.parse(readFileSync(golden));
const session = await ort.InferenceSession.create(model);

async function classify(picture) {
  const { data, info } = await sharp(picture).rotate().flatten({ background: "white" }).toColourspace("srgb")
    .removeAlpha().raw().toBuffer({ resolveWithObject: true });
  const images = new ort.Tensor("uint8", new Uint8Array(data), [1, info.height, info.width, 3]);
  return Array.from((await session.run({ images })).probabilities.data); // in the order of the classes
}

for (const picture of pictures) {
  const found = await classify(picture), best = found.indexOf(Math.max(...found));
  const wanted = answers[basename(picture)];
  const differs = wanted && Math.max(...wanted.map((value, place) => Math.abs(value - found[place])));
  console.log(picture, classes[best], found[best].toFixed(4), wanted ? `differs by ${differs.toExponential(1)}` : "");
  if (differs > 1e-3) process.exitCode = 1;
}
