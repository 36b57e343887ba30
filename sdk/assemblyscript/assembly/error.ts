/** The negative results of the interface. */
export enum HostError {
  None = 0,
  InvalidArgument = -1,
  OutOfRange = -2,
  NotInManifest = -3,
  PolicyDenied = -4,
  BadHandle = -5,
  Limit = -6,
  Io = -7,
  NotSupported = -8,
  TimedOut = -9,
  Revoked = -10,
}

let last: i32 = 0;

/** Why the host refused last; 0 when it never did. */
export function hostError(): i32 {
  return last;
}

/** A number of the interface; a negative one is kept for `hostError()`. */
export function checked(result: i32): i32 {
  if (result < 0) last = result;
  return result;
}
