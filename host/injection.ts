// Breaking the host on purpose, for whoever stands above it (scenarios, the command line): the kernel's interface, passed on.

export { type Injector, NO_INJECTION } from "./kernel/inject.ts";
