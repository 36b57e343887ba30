import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { Host } from "../../../assemblyscript/fake/host.mjs";

const near = (name) => readFile(new URL(`../${name}`, import.meta.url));
const wasm = await near("json-transformer.wasm");
const ask = (input) => new Host().input(typeof input === "string" ? input : JSON.stringify(input)).call(wasm);

test("the case gives its answer", async () => {
  const done = await ask(String(await near("case.input.json")));
  assert.deepEqual([done.exitCode, done.text], [0, String(await near("case.output.json")).trim()]);
  assert.deepEqual(done.metrics, [{ name: "steps", value: 4 }]);
});

test("a step that cannot be done ends with exit code 2 and its number", async () => {
  const data = { a: 1, b: "x" };
  for (const [step, reason] of [
    [{ do: "remove", name: "c" }, "there is no member `c`"],
    [{ do: "rename", name: "a", to: "b" }, "`b` is taken"],
    [{ do: "upper", name: "a" }, "`a` is not a text"],
    [{ do: "set", name: "a" }, "`set` needs a value"],
    [{ do: "fly", name: "a" }, "there is no step `fly`"],
  ]) {
    const done = await ask({ data, steps: [step] });
    assert.deepEqual([done.exitCode, done.text, done.log.at(-1).text], [2, "", `input: step 0: ${reason}`]);
  }
});
