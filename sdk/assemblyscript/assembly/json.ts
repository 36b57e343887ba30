// JSON (RFC 8259): bounded in depth, each member name once, numbers as f64.
import { Kind, Member, Value } from "./value";

const MAX_DEPTH: i32 = 64;

/** What a text was read as. */
export class Parsed {
  value: Value | null = null;
  /** Why it is not JSON, and where. */
  error: string = "";
}

/** Reads one value and nothing after it. */
export function parse(text: string): Parsed {
  const parser = new Parser(text);
  const parsed = new Parsed();
  parser.blank();
  const value = parser.value(0);
  parser.blank();
  if (parser.at < text.length) parser.wrong("text after the value");
  if (parser.error.length > 0) parsed.error = parser.error;
  else parsed.value = value;
  return parsed;
}

class Parser {
  at: i32 = 0;
  error: string = "";

  constructor(private text: string) {}

  /** Keeps the first error. */
  wrong(what: string): void {
    if (this.error.length == 0) this.error = what + " at character " + this.at.toString();
    // Nothing is read after an error.
    this.at = this.text.length;
  }

  peek(): i32 {
    return this.at < this.text.length ? this.text.charCodeAt(this.at) : -1;
  }

  blank(): void {
    for (let code = this.peek(); code == 32 || code == 9 || code == 10 || code == 13; code = this.peek()) this.at++;
  }

  take(code: i32): bool {
    if (this.peek() != code) return false;
    this.at++;
    return true;
  }

  value(depth: i32): Value {
    if (depth > MAX_DEPTH) this.wrong("nested too deep");
    const code = this.peek();
    if (code == 0x7b) return this.object(depth);
    if (code == 0x5b) return this.array(depth);
    if (code == 0x22) return Value.string(this.string());
    if (code == 0x2d || (code >= 0x30 && code <= 0x39)) return Value.number(this.number());
    if (this.word("true")) return Value.bool(true);
    if (this.word("false")) return Value.bool(false);
    if (!this.word("null")) this.wrong("no value");
    return new Value(Kind.Null);
  }

  word(word: string): bool {
    if (!this.text.startsWith(word, this.at)) return false;
    this.at += word.length;
    return true;
  }

  array(depth: i32): Value {
    const array = new Value(Kind.Array);
    this.at++;
    this.blank();
    if (this.take(0x5d)) return array;
    while (this.error.length == 0) {
      this.blank();
      array.items.push(this.value(depth + 1));
      this.blank();
      if (this.take(0x5d)) return array;
      if (!this.take(0x2c)) this.wrong("no comma between items");
    }
    return array;
  }

  object(depth: i32): Value {
    const object = Value.object();
    const names = new Set<string>();
    this.at++;
    this.blank();
    if (this.take(0x7d)) return object;
    while (this.error.length == 0) {
      this.blank();
      if (this.peek() != 0x22) {
        this.wrong("no member name");
        break;
      }
      const name = this.string();
      // Which of two counts, readers disagree about.
      if (names.has(name)) this.wrong("a member stands twice");
      names.add(name);
      this.blank();
      if (!this.take(0x3a)) this.wrong("no colon after a member name");
      this.blank();
      object.members.push(new Member(name, this.value(depth + 1)));
      this.blank();
      if (this.take(0x7d)) return object;
      if (!this.take(0x2c)) this.wrong("no comma between members");
    }
    return object;
  }

  digits(): bool {
    const start = this.at;
    for (let code = this.peek(); code >= 0x30 && code <= 0x39; code = this.peek()) this.at++;
    return this.at > start;
  }

  number(): f64 {
    const start = this.at;
    this.take(0x2d);
    const whole = this.take(0x30) || this.digits();
    const fraction = !this.take(0x2e) || this.digits();
    let exponent = true;
    if (this.take(0x65) || this.take(0x45)) {
      if (!this.take(0x2b)) this.take(0x2d);
      exponent = this.digits();
    }
    const number = parseFloat(this.text.substring(start, this.at));
    if (!whole || !fraction || !exponent || !isFinite(number)) this.wrong("no number");
    return number;
  }

  string(): string {
    let out = "";
    this.at++;
    while (true) {
      const start = this.at;
      let code = this.peek();
      while (code >= 0x20 && code != 0x22 && code != 0x5c) {
        this.at++;
        code = this.peek();
      }
      out += this.text.substring(start, this.at);
      if (this.take(0x22)) return out;
      if (!this.take(0x5c)) {
        this.wrong(code < 0 ? "no end of a text" : "a control character in a text");
        return out;
      }
      out += this.escape();
    }
  }

  escape(): string {
    const code = this.peek();
    this.at++;
    switch (code) {
      case 0x22: return '"';
      case 0x5c: return "\\";
      case 0x2f: return "/";
      case 0x62: return "\b";
      case 0x66: return "\f";
      case 0x6e: return "\n";
      case 0x72: return "\r";
      case 0x74: return "\t";
      case 0x75: {
        const unit = this.hex();
        if (unit < 0xd800 || unit >= 0xe000) return String.fromCharCode(unit);
        // Two halves make one character; half of one is none.
        if (unit < 0xdc00 && this.take(0x5c) && this.take(0x75)) {
          const low = this.hex();
          if (low >= 0xdc00 && low < 0xe000) return String.fromCharCode(unit, low);
        }
        this.wrong("half of a character");
        return "";
      }
      default:
        this.wrong("no such escape");
        return "";
    }
  }

  hex(): i32 {
    let unit = 0;
    for (let place = 0; place < 4; place++) {
      const code = this.peek();
      const lower = code | 0x20;
      if (code >= 0x30 && code <= 0x39) unit = unit * 16 + code - 0x30;
      else if (lower >= 0x61 && lower <= 0x66) unit = unit * 16 + lower - 0x57;
      else {
        this.wrong("no four hexadecimal digits");
        return 0;
      }
      this.at++;
    }
    return unit;
  }
}
