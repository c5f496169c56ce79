// Runs training steps in onnxruntime-node: node steps.js FOLDER, with step.onnx and run.json in the folder.
//
// run.json: {"outputs": {state name: type}, "feeds": [{name: {"type", "dims", "data"}} for each step],
// "state": {name: {"type", "dims", "data"}}}. Prints the losses as a JSON array.
"use strict";
const fs = require("fs");
const path = require("path");
const ort = require("onnxruntime-node");

function tensor({ type, dims, data }) {
  const values = type === "int64" ? BigInt64Array.from(data, BigInt) : Float32Array.from(data);
  return new ort.Tensor(type, values, dims);
}

function tensors(described) {
  return Object.fromEntries(Object.entries(described).map(([name, value]) => [name, tensor(value)]));
}

async function main(folder) {
  const run = JSON.parse(fs.readFileSync(path.join(folder, "run.json"), "utf8"));
  const options = { intraOpNumThreads: 1, interOpNumThreads: 1, executionProviders: ["cpu"] };
  const session = await ort.InferenceSession.create(path.join(folder, "step.onnx"), options);
  const state = tensors(run.state);
  const losses = [];
  for (const feeds of run.feeds) {
    const results = await session.run({ ...state, ...tensors(run.settings), ...tensors(feeds) });
    for (const name of Object.keys(state)) {
      state[name] = results[`${name}:new`];
    }
    losses.push(results.loss.data[0]);
  }
  console.log(JSON.stringify(losses));
}

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exit(1);
});
