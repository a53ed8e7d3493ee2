// What this driver does only if a host's description asks for it, because Linux's driver does not (host/kernel/README.md says more).

/** A fetch of a guest's own tables that the parent's stage 2 refuses is told to the guest, as F_CD_FETCH or F_WALK_EABT. */
export const RELAY_TABLE_FETCHES = "smmuv3-relay-table-fetches";
/** A PCIe page request goes to the fault queue instead of being denied. */
export const RELAY_PAGE_REQUESTS = "smmuv3-relay-page-requests";

export const SMMUV3_DEVIATIONS: readonly string[] = [RELAY_TABLE_FETCHES, RELAY_PAGE_REQUESTS];
