// The fake host of Node answers as every other host does: the cases of ../../cases.json.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { Host } from "../fake/host.mjs";

const { cases } = JSON.parse(await readFile(new URL("../../cases.json", import.meta.url)));
const PAGES = 200;
const TEXT = 4096;
const ROOM = 131072;
// (module (memory (export "memory") 1) (func (export "process") (result i32) (i32.const 0)))
const NOTHING = Buffer.from(
  "0061736d010000000105016000017f030201000503010001071402066d656d6f727902000770726f6365737300000a06010400410" + "00b",
  "hex",
);

/** Does the steps of a case as a module would: with addresses in a memory. Answers what each gave. */
async function done(steps, streams) {
  const answers = [];
  const memory = new WebAssembly.Memory({ initial: PAGES });
  const instantiate = WebAssembly.instantiate;
  // The module that is checked and compiled does nothing; these steps take the place of its instance.
  WebAssembly.instantiate = async (_, { mentat }) => ({
    exports: {
      memory,
      process: () => {
        const kept = new Map();
        for (const step of steps) {
          const answer = Number(mentat[step.call](...values(step, kept, memory)));
          if (step.as !== undefined) kept.set(step.as, answer);
          answers.push(answer);
        }
        return 0;
      },
    },
  });
  try {
    const host = new Host().input("0123456789").environment("TOKEN", "s3cret").media();
    await (streams ? host.streams() : host).call(NOTHING);
  } finally {
    WebAssembly.instantiate = instantiate;
  }
  return answers;
}

/** The arguments of a step, as WebAssembly passes them: 32 bits with a sign. */
function values(step, kept, memory) {
  const bytes = step.hex !== undefined ? Buffer.from(step.hex, "hex") : Buffer.from((step.text ?? "").repeat(step.times ?? 1));
  new Uint8Array(memory.buffer).set(bytes, TEXT);
  const named = step.text !== undefined || step.hex !== undefined;
  const range = (length) => [step.ptr ?? ROOM, length];
  const text = named ? [TEXT, bytes.length] : range(step.bytes);
  const handle = kept.get(step.handle) ?? step.handle;
  const value = { nan: NaN, inf: Infinity }[step.value] ?? step.value;
  switch (step.call) {
    case "input_len": return [];
    case "read_input": return [...range(step.cap), step.offset | 0];
    case "write_output": return range(step.bytes);
    case "record_metric": return [...text, value];
    case "buffer_len": case "close": case "end_stream": return [handle];
    case "buffer_read": return [handle, ...range(step.cap), BigInt(step.offset)];
    case "request_capability": case "download_media": case "start_stream": return text;
    case "invoke_capability": return [handle, ...text, ...range(step.bytes)];
    case "upload_media": return [...text, ...range(step.bytes)];
    case "write_stream": return [handle, ...range(step.bytes)];
    default: throw new Error(`no such call: ${step.call}`);
  }
}

for (const { name, streams = true, steps } of cases) {
  test(name, async () => {
    const each = steps.flatMap((step) => Array(step.again ?? 1).fill(step));
    const answers = await done(each, streams);
    for (const [place, step] of each.entries()) {
      const answer = step.gives === "handle" && answers[place] > 0 ? "handle" : answers[place];
      assert.equal(answer, step.gives, `step ${place}: ${JSON.stringify(step)}`);
    }
  });
}
