// The README's example of another language: two tensors are made on the server, added there, and the sum is read.
//
//   node add.js 127.0.0.1:50051
"use strict";

const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const PROTO = path.resolve(__dirname, "..", "..", "proto");
const definition = protoLoader.loadSync("tensorcompute/v1/tensor_service.proto", {
  includeDirs: [PROTO],
  keepCase: true,
  longs: Number, // ids of the server stay below 2^53
  enums: String,
});
const { TensorService } = grpc.loadPackageDefinition(definition).tensorcompute.v1;

async function main(address) {
  const server = new TensorService(address, grpc.credentials.createInsecure());
  const ask = (method, request) =>
    new Promise((resolve, reject) =>
      server[method](request, { deadline: Date.now() + 10_000 }, (error, answer) => (error ? reject(error) : resolve(answer))),
    );

  const numbers = Float32Array.from([1, 2, 3, 4]); // little-endian, as the contract wants it
  const a = await ask("CreateTensor", {
    data: { dtype: "D_TYPE_FLOAT32", shape: [2, 2], data: Buffer.from(numbers.buffer) },
  });
  const b = await ask("CreateTensor", { full: { value: { number: 0.5 } }, shape: [2, 2] });
  const sum = await ask("Add", { input: a.tensor.id, other: b.tensor.id });
  const answer = await ask("GetTensor", { tensor: sum.tensor.id, include_data: true, include_text: true });
  const bytes = Uint8Array.from(answer.data.data);
  console.log(Array.from(new Float32Array(bytes.buffer)));
  console.log(answer.text);

  // A mistake is a status with torch's own text.
  await ask("Reshape", { input: sum.tensor.id, shape: [3] }).catch((error) => console.log(error.details));

  await ask("FreeTensors", { tensors: [a, b, sum].map((made) => made.tensor.id) });
  server.close();
}

main(process.argv[2] || "127.0.0.1:50051").catch((error) => {
  console.error(String(error));
  process.exitCode = 1;
});
