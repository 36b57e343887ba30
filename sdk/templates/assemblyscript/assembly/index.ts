import { Agent, Input, Output, log, metric, run } from "../mentat-sdk/assembly/index";

/** Answers `{"name":"Ada"}` with `{"greeting":"hello, Ada"}`. Without a name the call ends with exit code 2, and the log says so. */
class Greeter extends Agent {
  process(input: Input): Output {
    const name = input.getString("name");
    log.info("greeting");
    metric("name_length", name.length);
    return Output.create().setString("greeting", "hello, " + name);
  }
}

export function process(): i32 {
  return run(new Greeter());
}
