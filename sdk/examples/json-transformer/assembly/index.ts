// The JSON transformer: an object and a list of steps come in, the changed object goes out. README.md has the steps.
import { Agent, Input, Kind, Output, Value, metric, run } from "../../../assemblyscript/assembly/index";

class Transformer extends Agent {
  process(input: Input): Output {
    const data = input.getObject("data");
    const steps = input.getArray("steps");
    for (let place = 0; place < steps.length; place++) {
      const wrong = apply(data, steps[place]);
      if (wrong.length > 0) input.fail("step " + place.toString() + ": " + wrong);
    }
    metric("steps", steps.length);
    return Output.create().setJSON("data", data).setNumber("steps", steps.length);
  }
}

/** Does one step; answers what is wrong with it, or nothing. */
function apply(data: Value, step: Value): string {
  const kind = text(step, "do");
  const name = text(step, "name");
  const place = data.find(name);
  if (kind == "set") {
    const value = step.get("value");
    if (value === null) return "`set` needs a value";
    data.set(name, value);
    return "";
  }
  if (place < 0) return "there is no member `" + name + "`";
  const member = data.members[place];
  if (kind == "remove") {
    data.members.splice(place, 1);
  } else if (kind == "rename") {
    const to = text(step, "to");
    if (data.find(to) >= 0) return "`" + to + "` is taken";
    member.name = to;
  } else if (kind == "upper") {
    if (member.value.kind != Kind.String) return "`" + name + "` is not a text";
    member.value = Value.string(upper(member.value.text));
  } else {
    return "there is no step `" + kind + "`";
  }
  return "";
}

/** The letters of ASCII in upper case; the rest as it is. */
function upper(text: string): string {
  let out = "";
  for (let place = 0; place < text.length; place++) {
    const code = text.charCodeAt(place);
    out += String.fromCharCode(code >= 0x61 && code <= 0x7a ? code - 32 : code);
  }
  return out;
}

function text(step: Value, name: string): string {
  const value = step.get(name);
  return value === null ? "" : value.text;
}

export function process(): i32 {
  return run(new Transformer());
}
