// What each TLB invalidation command drops (§4.4, §3.17).

import {
  CMD_TLBI_EL2_ALL,
  CMD_TLBI_EL2_ASID,
  CMD_TLBI_EL2_VA,
  CMD_TLBI_NH_ALL,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  CMD_TLBI_NH_VAA,
  CMD_TLBI_NSNH_ALL,
  CMD_TLBI_S2_IPA,
  CMD_TLBI_S12_VMALL,
} from "../commands.ts";
import { CR2_E2H, REG } from "../registers.ts";
import type { SmmuState } from "./smmu-state.ts";
import { TAG_EL1, TAG_EL2, TAG_IPA, type TranslationCache } from "./translation-cache.ts";

const EL1 = 1 << TAG_EL1;
const IPA = 1 << TAG_IPA;
const EL2 = 1 << TAG_EL2;

export class TlbInvalidations {
  readonly #state: SmmuState<number>;
  readonly #translations: TranslationCache;
  // not state: scratch
  readonly #scope = { tags: 0, vmid: -1, vmidMask: 0xffff, asid: -1, globals: false };

  constructor(state: SmmuState<number>, translations: TranslationCache) {
    this.#state = state;
    this.#translations = translations;
  }

  /** Executes a TLBI command by its words; false: it is illegal here. */
  execute(opcode: number, w0: number, w1: number, w2: number, w3: number): boolean {
    const { features } = this.#state;
    const scope = this.#scope;
    // Without stage 2 VMIDs are no tags, and their field is reserved (§4.4.1).
    scope.vmid = features.S2P ? w1 & 0xffff : 0;
    // CR0.VMW: so many low bits of the VMID are not compared (§6.3.9).
    scope.vmidMask = 0xffff & (-1 << ((this.#state.reg(REG.CR0) >>> 6) & 7));
    scope.asid = -1;
    scope.globals = true;
    const asid = w1 >>> 16;
    switch (opcode) {
      case CMD_TLBI_NH_ALL:
      case CMD_TLBI_NH_ASID:
      case CMD_TLBI_NH_VA:
      case CMD_TLBI_NH_VAA:
        if (!features.S1P) return false;
        scope.tags = EL1;
        if (opcode === CMD_TLBI_NH_ASID) {
          scope.asid = asid;
          scope.globals = false;
        } else if (opcode === CMD_TLBI_NH_VA) scope.asid = asid;
        if (opcode === CMD_TLBI_NH_VA || opcode === CMD_TLBI_NH_VAA) return this.#pages(w0, w2, w3);
        break;
      case CMD_TLBI_S12_VMALL:
        if (!features.S2P) return false;
        scope.tags = EL1 | IPA;
        break;
      case CMD_TLBI_S2_IPA:
        if (!features.S2P) return false;
        // Of stage 2 alone: what combines both stages is NH_ALL's.
        scope.tags = IPA;
        scope.asid = 0;
        return this.#pages(w0, w2, w3);
      case CMD_TLBI_NSNH_ALL:
        scope.tags = EL1 | IPA;
        scope.vmid = -1;
        break;
      default:
        return this.#el2(opcode, asid, w0, w2, w3);
    }
    this.#translations.invalidate(scope);
    return true;
  }

  /** NS-EL2 and NS-EL2-E2H, whichever CR2.E2H says there is. */
  #el2(opcode: number, asid: number, w0: number, w2: number, w3: number): boolean {
    const { features } = this.#state;
    if (!features.Hyp || !features.S1P) return false;
    const scope = this.#scope;
    scope.tags = EL2;
    scope.vmid = 0;
    scope.vmidMask = 0xffff;
    const tagged = (this.#state.reg(REG.CR2) & CR2_E2H) !== 0;
    if (opcode === CMD_TLBI_EL2_ALL) this.#translations.invalidate(scope);
    else if (opcode === CMD_TLBI_EL2_ASID) {
      scope.asid = tagged ? asid : -1;
      scope.globals = !tagged;
      this.#translations.invalidate(scope);
    } else {
      if (opcode === CMD_TLBI_EL2_VA) scope.asid = tagged ? asid : 0;
      return this.#pages(w0, w2, w3);
    }
    return true;
  }

  /** The address and, with RIL, range of a command (§4.4.1); false for the combination that is Reserved. */
  #pages(w0: number, w2: number, w3: number): boolean {
    const pfn = (w3 >>> 0) * 0x100000 + (w2 >>> 12);
    const tg = this.#state.features.RIL ? (w2 >>> 10) & 3 : 0;
    if (tg === 0) {
      this.#translations.invalidatePages(this.#scope, pfn, 1, 0, 0);
      return true;
    }
    const num = (w0 >>> 12) & 0x1f;
    const scale = (w0 >>> 20) & 0x1f;
    const ttl = (w2 >>> 8) & 3;
    if (num === 0 && scale === 0 && ttl === 0) return false;
    const granule = 10 + 2 * tg;
    const unit = 2 ** (granule - 12);
    // Without Leaf only entries above the level would go besides, and none are kept. There are no level-1 blocks of 16K.
    const level = ttl === 1 && granule === 14 ? 0 : ttl;
    const first = pfn - (pfn % unit);
    this.#translations.invalidatePages(this.#scope, first, (num + 1) * 2 ** scale * unit, granule, level);
    return true;
  }
}
