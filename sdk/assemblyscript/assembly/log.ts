import { at, log_line, utf8 } from "./abi";

/** Log lines. They never fail: over the executor's limits a line is dropped and counted. */
export namespace log {
  export function error(text: string): void { line(0, text); }
  export function warn(text: string): void { line(1, text); }
  export function info(text: string): void { line(2, text); }
  export function debug(text: string): void { line(3, text); }
  export function trace(text: string): void { line(4, text); }
}

function line(level: i32, text: string): void {
  const bytes = utf8(text);
  log_line(level, at(bytes), bytes.byteLength);
}
