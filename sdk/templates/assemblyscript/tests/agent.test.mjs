// The agent on a host that is no executor.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { Host } from "../mentat-sdk/fake/host.mjs";

const wasm = await readFile(new URL("../my-agent.wasm", import.meta.url));

test("it greets by name", async () => {
  const done = await new Host().input('{"name":"Ada"}').call(wasm);
  assert.deepEqual([done.exitCode, done.text], [0, '{"greeting":"hello, Ada"}']);
  assert.deepEqual(done.log, [{ level: "info", text: "greeting" }]);
  assert.deepEqual(done.metrics, [{ name: "name_length", value: 3 }]);
});

test("without a name there is no greeting", async () => {
  const done = await new Host().input("{}").call(wasm);
  assert.deepEqual([done.exitCode, done.text], [2, ""]);
  assert.equal(done.log.at(-1).text, "input: there is no member `name`");
});
