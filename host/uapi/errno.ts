// Error numbers of Linux (asm-generic), as system calls of the host model return them: negated.

export const EPERM = 1;
export const ENOENT = 2;
export const EIO = 5;
export const ENXIO = 6;
export const E2BIG = 7;
export const EBADF = 9;
export const EAGAIN = 11;
export const ENOMEM = 12;
export const EACCES = 13;
export const EFAULT = 14;
export const EBUSY = 16;
export const EEXIST = 17;
export const ENODEV = 19;
export const EINVAL = 22;
export const EMFILE = 24;
export const ENOTTY = 25;
export const ENOSPC = 28;
export const ESPIPE = 29;
export const ERANGE = 34;
export const EDEADLK = 35;
export const ENODATA = 61;
export const EBADFD = 77;
export const EOVERFLOW = 75;
export const EBADE = 52;
export const EMSGSIZE = 90;
export const EOPNOTSUPP = 95;
export const EADDRINUSE = 98;
export const ECANCELED = 125;
export const ETIMEDOUT = 110;

const NAMES: Readonly<Record<number, string>> = {
  1: "EPERM",
  2: "ENOENT",
  5: "EIO",
  6: "ENXIO",
  7: "E2BIG",
  9: "EBADF",
  11: "EAGAIN",
  12: "ENOMEM",
  13: "EACCES",
  14: "EFAULT",
  16: "EBUSY",
  17: "EEXIST",
  19: "ENODEV",
  22: "EINVAL",
  24: "EMFILE",
  25: "ENOTTY",
  28: "ENOSPC",
  29: "ESPIPE",
  34: "ERANGE",
  35: "EDEADLK",
  52: "EBADE",
  61: "ENODATA",
  75: "EOVERFLOW",
  77: "EBADFD",
  90: "EMSGSIZE",
  95: "EOPNOTSUPP",
  98: "EADDRINUSE",
  110: "ETIMEDOUT",
  125: "ECANCELED",
};

/** "EINVAL" for 22 or -22; "errno 200" for one without a name here. */
export function errnoName(errno: number): string {
  const positive = Math.abs(errno);
  return NAMES[positive] ?? `errno ${positive}`;
}

/** Number of a name such as "EINVAL", undefined if unknown. */
export function errnoOf(name: string): number | undefined {
  const entry = Object.entries(NAMES).find(([, known]) => known === name);
  return entry === undefined ? undefined : Number(entry[0]);
}
