// A model of any kind from another language: it is asked what it takes and gives, and runs named tensors.
//
//   node forward.js 127.0.0.1:50051 NAME INPUT 1,3,8,8
"use strict";

const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const PROTO = path.resolve(__dirname, "..", "..", "proto");
const definition = protoLoader.loadSync("tensorcompute/v1/model_service.proto", {
  includeDirs: [PROTO],
  keepCase: true,
  longs: Number,
  enums: String,
});
const { ModelService } = grpc.loadPackageDefinition(definition).tensorcompute.v1;

// A dimension has a size, or it varies and has a name.
const shown = (spec) => `${spec.name} ${spec.dtype.slice(7).toLowerCase()} (${spec.dimensions.map((each) => each.name || each.size).join(", ")})`;

async function main(address, name, input, sizes) {
  const server = new ModelService(address, grpc.credentials.createInsecure());
  const ask = (method, request) =>
    new Promise((resolve, reject) =>
      server[method](request, { deadline: Date.now() + 10_000 }, (error, answer) => (error ? reject(error) : resolve(answer))),
    );

  const { mlp: model } = await ask("DescribeMlp", { name });
  console.log(`${model.inputs.map(shown)} -> ${model.outputs.map(shown)}`);

  const shape = sizes.split(",").map(Number);
  const elements = new Float32Array(shape.reduce((product, size) => product * size, 1)).fill(0.5);
  const tensor = (data) => ({ name: input, operand: { data: { dtype: "D_TYPE_FLOAT32", shape, data: Buffer.from(data.buffer) } } });
  const { outputs } = await ask("ModelForward", { name, inputs: [tensor(elements)] });
  for (const each of outputs) {
    const { shape, data } = each.output.data;
    console.log(`${each.name} (${shape}): ${Array.from(new Float32Array(Uint8Array.from(data).buffer), (value) => value.toFixed(3))}`);
  }

  // A mistake is a status that says what the model takes.
  await ask("ModelForward", { name, inputs: [] }).catch((error) => console.log(error.details));
  server.close();
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(String(error));
  process.exitCode = 1;
});
