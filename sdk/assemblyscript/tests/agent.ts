// An agent that uses every part of the SDK, as its input says; host.test.mjs calls it.
import { Agent, Capability, Input, Media, Output, Stream, hostError, log, metric, run } from "../assembly/index";

class Everything extends Agent {
  init(): void {
    log.debug("init");
  }

  process(input: Input): Output {
    const use = input.getString("use");
    if (use == "echo") return Output.create().setJSON("got", input.getObject("value")).setBool("has", input.has("more"));
    if (use == "metric") return answer(metric(input.getString("name"), input.getNumber("value")));
    if (use == "environment") {
      const value = Capability.environment(input.getString("name"));
      return value === null ? answer(false) : Output.text(value);
    }
    if (use == "media") {
      const reference = Media.upload("text/plain", String.UTF8.encode("kept"));
      if (reference === null) return answer(false);
      const bytes = Media.download(reference);
      return bytes === null ? answer(false) : Output.bytes(bytes);
    }
    if (use == "stream") {
      const stream = Stream.start("pieces");
      if (stream === null) return answer(false);
      stream.write(String.UTF8.encode("one"));
      stream.write(String.UTF8.encode("two"));
      return Output.create().setNumber("pieces", stream.end());
    }
    if (use == "assert") {
      assert(input.has("more"), "there is more");
      return answer(true);
    }
    if (use == "halves") return Output.create().setString("\ud83d", "a\ude00b");
    return Output.failure("no such use", 9);
  }
}

function answer(done: bool): Output {
  return Output.create().setBool("done", done).setNumber("error", hostError());
}

export function process(): i32 {
  return run(new Everything());
}
