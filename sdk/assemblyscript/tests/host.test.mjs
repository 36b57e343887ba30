// The SDK over the fake host: node --test tests, after the agent beside this file was compiled.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { Host } from "../fake/host.mjs";

const wasm = await readFile(new URL("../build/agent.wasm", import.meta.url));
const granted = () => new Host().environment("GREETING", "hi").media().streams();
const ask = (input, host = granted()) => host.input(typeof input === "string" || Buffer.isBuffer(input) ? input : JSON.stringify(input)).call(wasm);

test("what comes in goes out again", async () => {
  const value = { a: [1, -2.5, 1e300, true, null, { b: 'ü€😀\n"\\\u0001' }], c: {}, d: [], e: 9007199254740992 };
  const done = await ask({ use: "echo", value });
  assert.equal(done.exitCode, 0);
  assert.deepEqual(JSON.parse(done.text), { got: value, has: false });
  assert.deepEqual(done.log, [{ level: "debug", text: "init" }]);
  const escaped = await ask('{"use":"\\u0065cho","value":{"\\ud83d\\ude00":"\\/\\b"},"more":0}');
  assert.deepEqual(JSON.parse(escaped.text), { got: { "😀": "/\b" }, has: true });
});

test("what is not what the agent takes ends with exit code 2 and says where", async () => {
  for (const [input, reason] of [
    ["", "no value at character 0"],
    ["{}", "there is no member `use`"],
    ["[1]", "it is no JSON object"],
    ['{"use":1}', "`use` is not a text"],
    ['{"use":"echo","use":"echo"}', "a member stands twice at character 19"],
    ['{"use":"echo","value":{"x":01}}', "no comma between members at character 28"],
    ['{"use":"\\ud800"}', "half of a character at character 14"],
    ["[".repeat(100), "nested too deep at character 65"],
  ]) {
    const done = await ask(input);
    assert.deepEqual([done.exitCode, done.text], [2, ""], input);
    assert.equal(done.log.at(-1).text, `input: ${reason}`);
  }
  assert.equal((await ask({ use: "nothing" })).exitCode, 9);
});

test("capabilities, media, metrics and streams", async () => {
  assert.equal((await ask({ use: "environment", name: "GREETING" })).text, "hi");
  assert.deepEqual(JSON.parse((await ask({ use: "environment", name: "OTHER" })).text), { done: false, error: -3 });
  const kept = await ask({ use: "media" });
  assert.deepEqual([kept.text, kept.stored[0].type], ["kept", "text/plain"]);
  const streamed = await ask({ use: "stream" });
  assert.deepEqual(streamed.streams.get("pieces").map((piece) => Buffer.from(piece).toString()), ["one", "two"]);
  assert.deepEqual((await ask({ use: "metric", name: "seen", value: 2 })).metrics, [{ name: "seen", value: 2 }]);
  const refused = await ask({ use: "metric", name: "Not Plain", value: 2 });
  assert.deepEqual(JSON.parse(refused.text), { done: false, error: -1 });
});

test("a module that imports what was not granted is refused as an executor refuses it", async () => {
  await assert.rejects(ask({ use: "echo" }, new Host()), /import_not_granted: mentat\.(request_capability|upload_media|start_stream)/);
});

test("bytes that are no UTF-8 are not what the agent takes", async () => {
  const around = (...bytes) => Buffer.concat([Buffer.from('{"use":"'), Buffer.from(bytes), Buffer.from('"}')]);
  for (const bytes of [
    [0xc0, 0xa2], // an over-long quotation mark: other readers see the text go on
    [0xc1, 0xbf], [0xe0, 0x9f, 0xbf], [0xf0, 0x8f, 0xbf, 0xbf], // over-long
    [0xed, 0xa0, 0x80], [0xed, 0xbf, 0xbf], // halves of pairs
    [0xf4, 0x90, 0x80, 0x80], [0xf5, 0x80, 0x80, 0x80], [0xff], // past the last character
    [0x80], [0xc3], [0xe2, 0x82], [0xf0, 0x9f, 0x98], [0xc3, 0x28], [0xe2, 0x28, 0xac], [0xe2, 0x82, 0x28], // cut
  ]) {
    const done = await ask(around(...bytes));
    assert.deepEqual([done.exitCode, done.log.at(-1).text], [2, "input: it is no UTF-8"], Buffer.from(bytes).toString("hex"));
  }
  // At the very end, where a decoder would leave it out.
  const cut = await ask(Buffer.concat([Buffer.from('{"use":"echo","value":{}}'), Buffer.from([0xe2, 0x82])]));
  assert.equal(cut.exitCode, 2);
  for (const text of ["\u0000", "\u007f", "\u0080", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\u{10000}", "\u{10ffff}"]) {
    const done = await ask({ use: "echo", value: { text } });
    assert.deepEqual(JSON.parse(done.text).got, { text });
  }
});

test("half of a character goes out as the replacement character", async () => {
  const done = await ask({ use: "halves" });
  assert.deepEqual(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(done.output)), { "\ufffd": "a\ufffdb" });
});

test("what an agent asserts is checked in the module that is built", async () => {
  assert.equal((await ask({ use: "assert", more: 1 })).exitCode, 0);
  await assert.rejects(ask({ use: "assert" }), /unreachable/);
});
