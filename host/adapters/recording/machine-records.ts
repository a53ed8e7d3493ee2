// The records of a machine's run, beside those of its drives (host-records.ts): what came between two slices of its CPUs. A turn is one look at
// the outside, counted from 1.

/** Of these records. */
export const MACHINE_RECORDS_VERSION = 1;
export const MACHINE_KIND = "machine";

export const TYPED = 64; // turn, bytes for the console
export const WAITED = 65; // turn, instant at which the idle machine went on (double, ns)
export const ENDED_BY = 66; // turn, how (index into OUTSIDE_ENDS), name of the signal

export const OUTSIDE_ENDS = ["wall-limit", "quit", "signal"] as const;
