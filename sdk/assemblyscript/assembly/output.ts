import { utf8 } from "./abi";
import { Value } from "./value";

/** The output of a call: a JSON object that is built member by member, bytes of any other form, or a failure. */
export class Output {
  private object: Value = Value.object();
  private other: ArrayBuffer | null = null;
  /** The exit code: 0 for success. */
  code: i32 = 0;
  /** Why the call failed. */
  message: string = "";

  /** An empty JSON object. */
  static create(): Output {
    return new Output();
  }

  /** Bytes as they are. */
  static bytes(bytes: ArrayBuffer): Output {
    const output = new Output();
    output.other = bytes;
    return output;
  }

  /** A text as it is. */
  static text(text: string): Output {
    return Output.bytes(utf8(text));
  }

  /** The agent's own reason to fail. An exit code of 0 would mean success and becomes 1. */
  static failure(message: string, code: i32 = 1): Output {
    const output = new Output();
    output.code = code == 0 ? 1 : code;
    output.message = message;
    return output;
  }

  setString(name: string, text: string): Output {
    return this.set(name, Value.string(text));
  }

  setNumber(name: string, number: f64): Output {
    return this.set(name, Value.number(number));
  }

  setBool(name: string, truth: bool): Output {
    return this.set(name, Value.bool(truth));
  }

  /** Any value, such as an object of the input. */
  setJSON(name: string, value: Value): Output {
    return this.set(name, value);
  }

  /** The bytes that go to the host. */
  toBytes(): ArrayBuffer {
    const other = this.other;
    return other === null ? utf8(this.object.toJSON()) : other;
  }

  private set(name: string, value: Value): Output {
    this.object.set(name, value);
    return this;
  }
}
