import { log } from "./log";

/** What the compiler calls where a program cannot go on: a log line, then the end of the instance. */
export function aborted(message: string | null, file: string | null, line: u32, column: u32): void {
  const where = (file === null ? "" : file) + ":" + line.toString();
  log.error((message === null ? "aborted" : message) + " in " + where);
  unreachable();
}
