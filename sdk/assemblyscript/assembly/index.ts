// Agents for the Mentat executor: a core module over the `mentat` interface, version 1.
//
//   class Greeter extends Agent {
//     process(input: Input): Output {
//       log.info("greeting");
//       return Output.create().setString("greeting", "hello, " + input.getString("name"));
//     }
//   }
//   export function process(): i32 { return run(new Greeter()); }
//
// A function of the interface that an agent does not use is not imported. AssemblyScript has no exceptions to catch: a getter
// that finds something else makes the call fail with exit code 2 whatever is returned, and what the host refuses is null with
// `hostError()` saying why.
export { Agent, run } from "./agent";
export { Capability, Media, Stream, metric } from "./host";
export { HostError, hostError } from "./error";
export { Input } from "./input";
export { Kind, Member, Value } from "./value";
export { Output } from "./output";
export { log } from "./log";
export { parse } from "./json";
export { aborted } from "./abort";
