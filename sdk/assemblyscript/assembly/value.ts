/** What a JSON value is. */
export enum Kind { Null, Bool, Number, String, Array, Object }

/** A member of an object. */
export class Member {
  constructor(public name: string, public value: Value) {}
}

/** A JSON value. Members keep their order. */
export class Value {
  truth: bool = false;
  number: f64 = 0;
  text: string = "";
  items: Value[] = [];
  members: Member[] = [];

  constructor(public kind: Kind) {}

  static bool(truth: bool): Value {
    const value = new Value(Kind.Bool);
    value.truth = truth;
    return value;
  }

  static number(number: f64): Value {
    const value = new Value(Kind.Number);
    value.number = number;
    return value;
  }

  static string(text: string): Value {
    const value = new Value(Kind.String);
    value.text = text;
    return value;
  }

  static object(): Value {
    return new Value(Kind.Object);
  }

  /** The place of a member, or -1. */
  find(name: string): i32 {
    for (let place = 0; place < this.members.length; place++) {
      if (this.members[place].name == name) return place;
    }
    return -1;
  }

  /** The member of an object. */
  get(name: string): Value | null {
    const place = this.find(name);
    return place < 0 ? null : this.members[place].value;
  }

  /** Adds a member, or changes the one of this name. */
  set(name: string, value: Value): void {
    const place = this.find(name);
    if (place < 0) this.members.push(new Member(name, value));
    else this.members[place].value = value;
  }

  /** The shortest text. */
  toJSON(): string {
    switch (this.kind) {
      case Kind.Bool: return this.truth ? "true" : "false";
      case Kind.Number: return written(this.number);
      case Kind.String: return quoted(this.text);
      case Kind.Array: {
        let out = "[";
        for (let place = 0; place < this.items.length; place++) {
          if (place > 0) out += ",";
          out += this.items[place].toJSON();
        }
        return out + "]";
      }
      case Kind.Object: {
        let out = "{";
        for (let place = 0; place < this.members.length; place++) {
          if (place > 0) out += ",";
          out += quoted(this.members[place].name) + ":" + this.members[place].value.toJSON();
        }
        return out + "}";
      }
      default: return "null";
    }
  }
}

function written(number: f64): string {
  if (!isFinite(number)) return "null";
  const whole = <i64>number;
  // Up to 2^53 whole numbers are exact.
  if (<f64>whole == number && abs(number) <= 9007199254740992.0) return whole.toString();
  return number.toString();
}

function quoted(text: string): string {
  let out = '"';
  let start = 0;
  for (let place = 0; place < text.length; place++) {
    const code = text.charCodeAt(place);
    if (code >= 0x20 && code != 0x22 && code != 0x5c) continue;
    out += text.substring(start, place);
    start = place + 1;
    if (code == 0x22) out += '\\"';
    else if (code == 0x5c) out += "\\\\";
    else if (code == 10) out += "\\n";
    else if (code == 13) out += "\\r";
    else if (code == 9) out += "\\t";
    else out += "\\u00" + (code < 16 ? "0" : "1") + "0123456789abcdef".charAt(code & 15);
  }
  return out + text.substring(start) + '"';
}
