// Gives the outline of a text in Markdown: its headings, with their levels and the words below each.
//
// A guest that is a component made from JavaScript: `componentize-js` puts the engine and this file into one module, and writes what is
// imported here from `world.wit`.

import { inputLen, readInput, writeOutput } from "mentat:agent/io@1.0.0";
import { log } from "mentat:agent/log@1.0.0";
import { recordMetric } from "mentat:agent/metric@1.0.0";

// Largest transfer of one call of the interface, bytes.
const MAX_TRANSFER = 8 << 20;

function read() {
  const bytes = new Uint8Array(Number(inputLen()));
  for (let at = 0; at < bytes.length; ) {
    const piece = readInput(BigInt(at), MAX_TRANSFER);
    bytes.set(piece, at);
    at += piece.length;
  }
  return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
}

function outline(text) {
  const headings = [];
  for (const line of text.split("\n")) {
    const heading = /^(#{1,6})\s+(.+?)\s*#*$/.exec(line);
    if (heading) {
      headings.push({ level: heading[1].length, title: heading[2], words: 0 });
    } else if (headings.length > 0) {
      headings.at(-1).words += line.split(/\s+/).filter(Boolean).length;
    }
  }
  return headings;
}

export function process() {
  let text;
  try {
    text = read();
  } catch {
    // What is thrown with a payload is the error of the call.
    throw Object.assign(new Error(), { payload: "it is no UTF-8" });
  }
  const headings = outline(text);
  recordMetric("headings", headings.length);
  log("info", "outlined");
  writeOutput(new TextEncoder().encode(JSON.stringify(headings)));
}
