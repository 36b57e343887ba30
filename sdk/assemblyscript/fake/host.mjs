// A host that is no executor: it instantiates a module with imports of its own, and the test sees what the module did.
//
//   const done = await new Host().input('{"name":"Ada"}').call(await readFile("build/agent.wasm"));
//
// It keeps the rules of the interface that an agent can notice: grammars, ranges, handles, what was not granted. It has no
// limits of time and memory, and grants what the test says, where an executor asks its policy. It takes modules in any language.
// ../../cases.json holds it to what the executor answers.

const LEVELS = ["error", "warn", "info", "debug", "trace"];
const MAX_TRANSFER = 8 << 20;
const MAX_NAME = 4096;
const MAX_ID = 256;
const MAX_HANDLES = 64;
const MAX_STREAMS = 16;
const PIECE = 128 << 10;
const [INVALID, RANGE, NOT_IN_MANIFEST, BAD_HANDLE, LIMIT, IO, UNSUPPORTED] = [-1, -2, -3, -5, -6, -7, -8];
const CAPABILITY = /^(env:[A-Za-z_][A-Za-z0-9_]{0,127}|(compute|extension|filesystem|network):[^]+)$/;
const MEDIA_TYPE = /^[A-Za-z0-9!#$&^_.+-]+\/[A-Za-z0-9!#$&^_.+-]+$/;
const ALWAYS = ["input_len", "read_input", "write_output", "log", "record_metric", "buffer_len", "buffer_read", "close"];

/** Refused by the interface, with its number. */
class Refused extends Error {
  constructor(code) {
    super(`refused with ${code}`);
    this.code = code;
  }
}

const bytesOf = (data) => (typeof data === "string" ? new TextEncoder().encode(data) : new Uint8Array(data));

export class Host {
  #input = new Uint8Array(0);
  #capabilities = new Map();
  #media = null;
  #streams = false;

  /** The input of the call: text or bytes. */
  input(data) {
    this.#input = bytesOf(data);
    return this;
  }

  /** Grants a variable. */
  environment(name, value) {
    return this.grant(`env:${name}`, (operation) => {
      if (operation !== "get") throw Host.refusal(INVALID);
      return value;
    });
  }

  /** Grants a capability and says what it does: `(operation, bytes) => text or bytes`, or throws `Host.refusal(code)`. */
  grant(capability, operation) {
    this.#capabilities.set(capability, operation);
    return this;
  }

  /** Grants the store of objects; a reference and bytes put one into it. */
  media(reference, data) {
    this.#media ??= new Map();
    if (reference !== undefined) this.#media.set(reference, bytesOf(data));
    return this;
  }

  /** Makes this a call whose streams are read. */
  streams() {
    this.#streams = true;
    return this;
  }

  /** What a granted operation throws to refuse. */
  static refusal(code) {
    return new Refused(code);
  }

  /** Calls `process` of a fresh instance. Throws for a module that an executor would refuse at load. */
  async call(wasm) {
    const module = await WebAssembly.compile(wasm);
    const done = { exitCode: -1, output: new Uint8Array(0), text: "", log: [], metrics: [], streams: new Map(), stored: [] };
    const state = { instance: null, done, handles: new Map(), next: 7001 };
    const functions = this.#functions(state);
    for (const { module: from, name } of WebAssembly.Module.imports(module)) {
      if (from !== "mentat" || functions[name] === undefined || !this.#linked(name)) {
        throw new Error(`import_not_granted: ${from}.${name}`);
      }
    }
    const exports = new Set(WebAssembly.Module.exports(module).map(({ name }) => name));
    for (const name of ["memory", "process"]) {
      if (!exports.has(name)) throw new Error(`export_missing: ${name}`);
    }
    state.instance = await WebAssembly.instantiate(module, { mentat: functions });
    state.instance.exports._initialize?.();
    done.exitCode = state.instance.exports.process();
    done.text = new TextDecoder().decode(done.output);
    return done;
  }

  #linked(name) {
    if (ALWAYS.includes(name)) return true;
    if (name.endsWith("_capability")) return this.#capabilities.size > 0;
    return name.endsWith("_media") ? this.#media !== null : this.#streams;
  }

  #functions(state) {
    const { done, handles } = state;
    const memory = (ptr, len) => {
      const [start, length] = [ptr >>> 0, len >>> 0];
      const { buffer } = state.instance.exports.memory;
      if (start + length > buffer.byteLength) throw new Refused(RANGE);
      if (length > MAX_TRANSFER) throw new Refused(LIMIT);
      return new Uint8Array(buffer, start, length);
    };
    const text = (ptr, len, longest = MAX_NAME) => {
      const bytes = memory(ptr, len);
      if (bytes.length > longest) throw new Refused(LIMIT);
      try {
        return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
      } catch {
        throw new Refused(INVALID);
      }
    };
    const copy = (from, ptr, cap, offset) => {
      const room = memory(ptr, cap);
      const piece = from.subarray(offset, offset + room.length);
      room.set(piece);
      return piece.length;
    };
    const held = () => [...handles.values()].reduce((sum, { bytes }) => sum + (bytes?.length ?? 0), 0);
    const insert = (resource) => {
      if (handles.size >= MAX_HANDLES || held() + (resource.bytes?.length ?? 0) > MAX_TRANSFER) throw new Refused(LIMIT);
      handles.set(state.next, resource);
      return state.next++;
    };
    const get = (handle, kind) => {
      const resource = handles.get(handle);
      if (resource === undefined || !(kind in resource)) throw new Refused(BAD_HANDLE);
      return resource;
    };
    const store = () => {
      if (this.#media === null) throw new Refused(NOT_IN_MANIFEST);
      return this.#media;
    };
    const raw = {
      input_len: () => BigInt(this.#input.length),
      read_input: (ptr, cap, offset) => copy(this.#input, ptr, cap, offset >>> 0),
      write_output: (ptr, len) => {
        done.output = Buffer.concat([done.output, memory(ptr, len)]);
        return len;
      },
      log: (level, ptr, len) => {
        if (LEVELS[level] !== undefined) done.log.push({ level: LEVELS[level], text: text(ptr, len, MAX_TRANSFER) });
      },
      record_metric: (ptr, len, value) => {
        const name = text(ptr, len);
        if (!/^[a-z_][a-z0-9_]{0,63}$/.test(name) || !Number.isFinite(value)) throw new Refused(INVALID);
        done.metrics.push({ name, value });
        return 0;
      },
      buffer_len: (handle) => BigInt(get(handle, "bytes").bytes.length),
      buffer_read: (handle, ptr, cap, offset) => {
        if (offset < 0n) throw new Refused(INVALID);
        return copy(get(handle, "bytes").bytes, ptr, cap, Number(offset));
      },
      close: (handle) => {
        if (!handles.delete(handle)) throw new Refused(BAD_HANDLE);
        return 0;
      },
      request_capability: (ptr, len) => {
        const capability = text(ptr, len);
        if (!CAPABILITY.test(capability)) throw new Refused(INVALID);
        if (!this.#capabilities.has(capability)) throw new Refused(NOT_IN_MANIFEST);
        return insert({ operation: this.#capabilities.get(capability) });
      },
      invoke_capability: (handle, ptr, len, args, argsLen) => {
        const [name, given] = [text(ptr, len), memory(args, argsLen).slice()];
        const { operation } = get(handle, "operation");
        return insert({ bytes: bytesOf(operation(name, given)) });
      },
      download_media: (ptr, len) => {
        const [reference, objects] = [text(ptr, len), store()];
        if (!/^sha256:[0-9a-f]{64}$/.test(reference)) throw new Refused(INVALID);
        if (!objects.has(reference)) throw new Refused(IO);
        return insert({ bytes: objects.get(reference) });
      },
      upload_media: (typePtr, typeLen, ptr, len) => {
        const [type, bytes, objects] = [text(typePtr, typeLen, 128), memory(ptr, len).slice(), store()];
        if (!MEDIA_TYPE.test(type)) throw new Refused(INVALID);
        // Of the right form and of its own for every object; the digest is the executor's work.
        const reference = `sha256:${(objects.size + 1).toString(16).padStart(64, "0")}`;
        objects.set(reference, bytes);
        done.stored.push({ reference, type, bytes });
        return insert({ bytes: bytesOf(reference) });
      },
      start_stream: (ptr, len) => {
        const id = text(ptr, len);
        if (!this.#streams) throw new Refused(UNSUPPORTED);
        if (id === "" || bytesOf(id).length > MAX_ID || /\p{Cc}/u.test(id) || done.streams.has(id)) throw new Refused(INVALID);
        if (done.streams.size >= MAX_STREAMS) throw new Refused(LIMIT);
        done.streams.set(id, []);
        return insert({ pieces: done.streams.get(id) });
      },
      write_stream: (handle, ptr, len) => {
        const bytes = memory(ptr, len).slice();
        const { pieces } = get(handle, "pieces");
        // A long piece reaches the reader as several, an empty one not at all.
        for (let at = 0; at < bytes.length; at += PIECE) pieces.push(bytes.slice(at, at + PIECE));
        return bytes.length;
      },
      end_stream: (handle) => {
        const { pieces } = get(handle, "pieces");
        handles.delete(handle);
        return pieces.length;
      },
    };
    const answering = (name, call) => (...values) => {
      try {
        return call(...values);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        return name.endsWith("_len") ? BigInt(error.code) : error.code;
      }
    };
    return Object.fromEntries(Object.entries(raw).map(([name, call]) => [name, answering(name, call)]));
  }
}
