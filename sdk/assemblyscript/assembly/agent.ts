import { hostError } from "./error";
import { readInput, writeOutput } from "./host";
import { Input } from "./input";
import { log } from "./log";
import { Output } from "./output";

/** What a module is: extend it, and give an instance to `run`. */
export abstract class Agent {
  /** Called once before `process`. */
  init(): void {}

  /** Answers an input. */
  abstract process(input: Input): Output;
}

/** Runs an agent in the call that the host is making: 0, its own code, 2 for an input it does not take, 3 when the host refused. */
export function run(agent: Agent): i32 {
  const bytes = readInput();
  if (bytes === null) return refused();
  const input = new Input(bytes);
  agent.init();
  const output = agent.process(input);
  if (input.failure.length > 0) {
    log.error("input: " + input.failure);
    return 2;
  }
  if (output.code != 0) {
    log.error(output.message);
    return output.code;
  }
  return writeOutput(output.toBytes()) ? 0 : refused();
}

function refused(): i32 {
  log.error("host: error " + hostError().toString());
  return 3;
}
