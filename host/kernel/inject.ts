// Breaking the host on purpose: one interface that kernel code asks at its failure points. What answers is a plan made by a
// scenario, a test, or `--inject`; without one nothing fails.

export interface Injector {
  /** Asked before a system call is handled; a negated errno to fail it with, 0 to let it run. `name` as in the uAPI headers. */
  ioctl(name: string): number;
  /** Asked at every allocation that a kernel could fail; true fails it with -ENOMEM. `what` names the object. */
  allocation(what: string): boolean;
  /** Asked for every event about to be queued; true loses it. `queue` is "veventq" or "fault". */
  loseEvent(queue: string): boolean;
}

/** Nothing fails. */
export const NO_INJECTION: Injector = {
  ioctl: () => 0,
  allocation: () => false,
  loseEvent: () => false,
};
