// What an agent may use besides answering. A function that the manifest was not granted must not be imported: it is not, as
// long as it is not called.
import * as abi from "./abi";
import { at, text, utf8 } from "./abi";
import { HostError, checked } from "./error";

/** The whole input. */
export function readInput(): ArrayBuffer | null {
  const length = abi.input_len();
  if (length < 0 || length > i32.MAX_VALUE) {
    checked(HostError.Io);
    return null;
  }
  const bytes = new ArrayBuffer(<i32>length);
  let done = 0;
  while (done < bytes.byteLength) {
    const got = checked(abi.read_input(at(bytes) + done, min(bytes.byteLength - done, abi.MAX_TRANSFER), done));
    if (got == 0) checked(HostError.Io);
    if (got <= 0) return null;
    done += got;
  }
  return bytes;
}

/** Appends to the output. */
export function writeOutput(bytes: ArrayBuffer): bool {
  let done = 0;
  while (done < bytes.byteLength) {
    const piece = min(bytes.byteLength - done, abi.MAX_TRANSFER);
    if (checked(abi.write_output(at(bytes) + done, piece)) < 0) return false;
    done += piece;
  }
  return true;
}

/** The bytes of a result; its buffer is closed. */
function take(buffer: i32): ArrayBuffer | null {
  if (checked(buffer) < 0) return null;
  const length = abi.buffer_len(buffer);
  if (length < 0 || length > i32.MAX_VALUE) {
    checked(length < 0 ? <i32>length : HostError.Io);
    abi.close(buffer);
    return null;
  }
  const bytes = new ArrayBuffer(<i32>length);
  let done = 0;
  while (done < bytes.byteLength) {
    const piece = min(bytes.byteLength - done, abi.MAX_TRANSFER);
    const got = checked(abi.buffer_read(buffer, at(bytes) + done, piece, done));
    if (got <= 0) {
      if (got == 0) checked(HostError.Io);
      break;
    }
    done += got;
  }
  abi.close(buffer);
  return done == bytes.byteLength ? bytes : null;
}

/** A result that is a text. */
function answered(bytes: ArrayBuffer): string | null {
  const read = text(bytes);
  if (read === null) checked(HostError.Io);
  return read;
}

/** Records a finite value under a name of the form `[a-z_][a-z0-9_]*`, at most 64 bytes. */
export function metric(name: string, value: f64): bool {
  const bytes = utf8(name);
  return checked(abi.record_metric(at(bytes), bytes.byteLength, value)) >= 0;
}

/** A capability that was asked for and granted. The executor checks every use of it. */
export class Capability {
  private constructor(private handle: i32) {}

  /** Asks for a capability in the grammar of manifests, such as `env:API_KEY`. */
  static request(text: string): Capability | null {
    const bytes = utf8(text);
    const handle = checked(abi.request_capability(at(bytes), bytes.byteLength));
    return handle < 0 ? null : new Capability(handle);
  }

  /** The value of a variable that `env:NAME` grants. */
  static environment(name: string): string | null {
    const granted = Capability.request("env:" + name);
    if (granted === null) return null;
    const value = granted.invoke("get", new ArrayBuffer(0));
    granted.close();
    return value === null ? null : answered(value);
  }

  /** Uses it: `get` of `env:NAME`, `request` of `network:https:HOST`. */
  invoke(operation: string, args: ArrayBuffer): ArrayBuffer | null {
    const name = utf8(operation);
    return take(abi.invoke_capability(this.handle, at(name), name.byteLength, at(args), args.byteLength));
  }

  /** Gives the handle back. */
  close(): void {
    abi.close(this.handle);
  }
}

/** The store of objects that `extension:media` grants. */
export class Media {
  /** The object of a reference of the form `sha256:…`. */
  static download(reference: string): ArrayBuffer | null {
    const name = utf8(reference);
    return take(abi.download_media(at(name), name.byteLength));
  }

  /** Stores an object; the answer is its reference. */
  static upload(mediaType: string, bytes: ArrayBuffer): string | null {
    const kind = utf8(mediaType);
    const reference = take(abi.upload_media(at(kind), kind.byteLength, at(bytes), bytes.byteLength));
    return reference === null ? null : answered(reference);
  }
}

/** Output in pieces while the call runs, which `extension:stream` grants. */
export class Stream {
  private constructor(private handle: i32) {}

  /** Starts a stream; a name is used once in a call. */
  static start(id: string): Stream | null {
    const name = utf8(id);
    const handle = checked(abi.start_stream(at(name), name.byteLength));
    return handle < 0 ? null : new Stream(handle);
  }

  /** Sends a piece; waits while the reader is behind. */
  write(bytes: ArrayBuffer): bool {
    return checked(abi.write_stream(this.handle, at(bytes), bytes.byteLength)) == bytes.byteLength;
  }

  /** Ends it; the number of pieces, or -1. */
  end(): i32 {
    const pieces = checked(abi.end_stream(this.handle));
    return pieces < 0 ? -1 : pieces;
  }
}
