// A host that is no executor: it instantiates a module with imports of its own, and the test sees what the module did.
//
//   const done = await new Host().input('{"name":"Ada"}').call(await readFile("build/agent.wasm"));
//
// It keeps the rules of the interface that an agent can notice: grammars, ranges, handles, what was not granted. It has no
// limits of time and memory, and grants what the test says, where an executor asks its policy. It takes modules in any language.

const LEVELS = ["error", "warn", "info", "debug", "trace"];
const MAX_TRANSFER = 8 << 20;
const MAX_NAME = 256;
const [INVALID, RANGE, NOT_IN_MANIFEST, BAD_HANDLE, IO, UNSUPPORTED] = [-1, -2, -3, -5, -7, -8];
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
      if (length > MAX_TRANSFER) throw new Refused(INVALID);
      if (start + length > buffer.byteLength) throw new Refused(RANGE);
      return new Uint8Array(buffer, start, length);
    };
    const text = (ptr, len, longest = MAX_NAME) => {
      if (len >>> 0 > longest) throw new Refused(INVALID);
      try {
        return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(memory(ptr, len));
      } catch (error) {
        throw error instanceof Refused ? error : new Refused(INVALID);
      }
    };
    const copy = (from, ptr, cap, offset) => {
      const piece = from.subarray(offset, offset + (cap >>> 0));
      memory(ptr, piece.length).set(piece);
      return piece.length;
    };
    const insert = (resource) => {
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
        const name = text(ptr, len, 64);
        if (!/^[a-z_][a-z0-9_]*$/.test(name) || !Number.isFinite(value)) throw new Refused(INVALID);
        done.metrics.push({ name, value });
        return 0;
      },
      buffer_len: (handle) => BigInt(get(handle, "bytes").bytes.length),
      buffer_read: (handle, ptr, cap, offset) => copy(get(handle, "bytes").bytes, ptr, cap, Number(offset)),
      close: (handle) => {
        if (!handles.delete(handle)) throw new Refused(BAD_HANDLE);
        return 0;
      },
      request_capability: (ptr, len) => {
        const capability = text(ptr, len);
        if (!capability.includes(":")) throw new Refused(INVALID);
        if (!this.#capabilities.has(capability)) throw new Refused(NOT_IN_MANIFEST);
        return insert({ operation: this.#capabilities.get(capability) });
      },
      invoke_capability: (handle, ptr, len, args, argsLen) => {
        const { operation } = get(handle, "operation");
        return insert({ bytes: bytesOf(operation(text(ptr, len), memory(args, argsLen).slice())) });
      },
      download_media: (ptr, len) => {
        const [objects, reference] = [store(), text(ptr, len)];
        if (!/^sha256:[0-9a-f]{64}$/.test(reference)) throw new Refused(INVALID);
        if (!objects.has(reference)) throw new Refused(IO);
        return insert({ bytes: objects.get(reference) });
      },
      upload_media: (typePtr, typeLen, ptr, len) => {
        const [objects, type, bytes] = [store(), text(typePtr, typeLen, 128), memory(ptr, len).slice()];
        if (!type.includes("/")) throw new Refused(INVALID);
        // Of the right form and of its own for every object; the digest is the executor's work.
        const reference = `sha256:${(objects.size + 1).toString(16).padStart(64, "0")}`;
        objects.set(reference, bytes);
        done.stored.push({ reference, type, bytes });
        return insert({ bytes: bytesOf(reference) });
      },
      start_stream: (ptr, len) => {
        const id = text(ptr, len);
        if (!this.#streams) throw new Refused(UNSUPPORTED);
        if (id === "" || /\p{Cc}/u.test(id) || done.streams.has(id)) throw new Refused(INVALID);
        done.streams.set(id, []);
        return insert({ pieces: done.streams.get(id) });
      },
      write_stream: (handle, ptr, len) => {
        get(handle, "pieces").pieces.push(memory(ptr, len).slice());
        return len;
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
