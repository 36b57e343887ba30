import { text } from "./abi";
import { parse } from "./json";
import { Kind, Value } from "./value";

/**
 * The input of a call: bytes, which by convention are a JSON object. They are read as JSON when that is first asked for. A
 * getter that does not find what it names gives an empty value, and the call fails with exit code 2.
 */
export class Input {
  /** What a getter did not find; empty while all is well. */
  failure: string = "";
  private parsed: Value | null = null;

  constructor(
    /** The bytes as they came. */
    public bytes: ArrayBuffer,
  ) {}

  /** The input as a text. Bytes that are no UTF-8 are not what the agent takes. */
  text(): string {
    const read = text(this.bytes);
    if (read === null) {
      this.fail("it is no UTF-8");
      return "";
    }
    return read;
  }

  /** The input as JSON. */
  value(): Value {
    const known = this.parsed;
    if (known !== null) return known;
    const parsed = parse(this.text());
    if (parsed.error.length > 0) this.fail(parsed.error);
    const value = parsed.value;
    const read = value === null ? new Value(Kind.Null) : value;
    this.parsed = read;
    return read;
  }

  /** Whether there is a member that is not `null`. */
  has(name: string): bool {
    const value = this.value().get(name);
    return value !== null && value.kind != Kind.Null;
  }

  getString(name: string): string {
    return this.member(name, Kind.String, "a text").text;
  }

  getNumber(name: string): f64 {
    return this.member(name, Kind.Number, "a number").number;
  }

  getBool(name: string): bool {
    return this.member(name, Kind.Bool, "true or false").truth;
  }

  getArray(name: string): Value[] {
    return this.member(name, Kind.Array, "a list").items;
  }

  getObject(name: string): Value {
    return this.member(name, Kind.Object, "an object");
  }

  /** Says that the input is not what the agent takes. The first reason is kept. */
  fail(what: string): void {
    if (this.failure.length == 0) this.failure = what;
  }

  private member(name: string, kind: Kind, what: string): Value {
    const whole = this.value();
    const value = whole.get(name);
    if (whole.kind != Kind.Object) this.fail("it is no JSON object");
    else if (value === null) this.fail("there is no member `" + name + "`");
    else if (value.kind == kind) return value;
    else this.fail("`" + name + "` is not " + what);
    return new Value(kind);
  }
}
