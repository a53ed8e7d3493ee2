// What the host does not give to a machine that cannot be built without it.

import { errnoName } from "../../host/uapi/errno.ts";

/**
 * The host refused something a machine cannot be built without, or would not keep what the machine promises (then without an errno, 0):
 * one line, for the person who started it.
 */
export class HostRefusal extends Error {
  readonly errno: number;

  constructor(what: string, errno: number) {
    super(errno === 0 ? what : `${what}: ${errnoName(errno)}`);
    this.errno = errno;
  }
}
