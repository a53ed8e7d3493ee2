// What this driver does only if a host's description asks for it, because Linux's driver does not (host/kernel/README.md says more).

/** Faults of a device whose unit user space plays are told to user space: a vIOMMU type with nothing but vDEVICEs and an event queue. */
export const RELAY_FAULTS = "vtd-relay-faults";

export const VTD_DEVIATIONS: readonly string[] = [RELAY_FAULTS];
