// Answers to PCIe ATS translation requests (PCIe 6.0 §10.2.3).

/** Result of an ATS translation request, left in these fields until the next one. */
export interface AtsTranslation {
  /** Translated page-frame number (SPA, or GPA under T2GPA) of the start of the range. */
  pfn: number;
  /** log2 of the range in bytes, >= 12. */
  sizeLog2: number;
  read: boolean;
  write: boolean;
  execute: boolean;
  privileged: boolean;
  global: boolean;
  /** Untranslated requests only (U). */
  untranslatedOnly: boolean;
}

/** A result that grants nothing. */
export function noTranslation(): AtsTranslation {
  return {
    pfn: 0,
    sizeLog2: 12,
    read: false,
    write: false,
    execute: false,
    privileged: false,
    global: false,
    untranslatedOnly: false,
  };
}

export const ATS_SUCCESS = 0;
export const ATS_UNSUPPORTED_REQUEST = 1;
export const ATS_COMPLETER_ABORT = 2;
export type AtsStatus = 0 | 1 | 2;
