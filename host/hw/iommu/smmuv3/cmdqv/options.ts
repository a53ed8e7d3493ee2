// What one CMDQV is: CMDQV_PARAM.

export interface CmdqvOptions {
  /** CMDQV_PARAM by its fields: log2 of all VCMDQs (Tegra241: 7), of VINTFs (6), of SID_MATCH/REPLACE pairs of a VINTF (4). */
  readonly log2vcmdqs?: number;
  readonly log2vintfs?: number;
  readonly log2vsids?: number;
}

export type CmdqvConfiguration = Required<CmdqvOptions>;

/** Fills in defaults. Throws RangeError for what the register map has no room for. */
export function configureCmdqv(options: CmdqvOptions): CmdqvConfiguration {
  const { log2vcmdqs = 7, log2vintfs = 6, log2vsids = 4 } = options;
  const bound = (value: number, high: number, what: string): number => {
    if (!Number.isInteger(value) || value < 0 || value > high)
      throw new RangeError(`cmdqv.${what} must be 0 to ${high}`);
    return value;
  };
  bound(log2vcmdqs, 7, "log2vcmdqs");
  bound(log2vintfs, 6, "log2vintfs");
  bound(log2vsids, 4, "log2vsids");
  if (log2vintfs > log2vcmdqs)
    throw new RangeError("cmdqv.log2vintfs is more than cmdqv.log2vcmdqs: a VINTF without a queue");
  return { log2vcmdqs, log2vintfs, log2vsids };
}
