// Virtual interfaces: whose commands a queue carries. A VINTF that is not HYP_OWN is a guest's: its commands get the VINTF's VMID, and stream ids are
// looked up in its SID_MATCH registers.

import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../../base/state.ts";
import { VINTF_CONFIG_BITS, VINTF_EN, VINTF_HYP_OWN } from "../tegra241-cmdqv.ts";

export class Vintfs implements Stateful {
  readonly count: number;
  readonly sids: number;
  readonly #configBits: number;
  readonly #configs: Uint32Array;
  readonly #matches: Uint32Array;
  readonly #replacements: Uint32Array;

  /** `mayOwn`: HYP_OWN can be set; in a virtual machine it cannot. */
  constructor(count: number, sids: number, mayOwn: boolean) {
    this.count = count;
    this.sids = sids;
    this.#configBits = mayOwn ? VINTF_CONFIG_BITS : VINTF_CONFIG_BITS & ~VINTF_HYP_OWN;
    this.#configs = new Uint32Array(count);
    this.#matches = new Uint32Array(count * sids);
    this.#replacements = new Uint32Array(count * sids);
  }

  saveState(): StateRecord {
    return {
      configs: bytesOf(this.#configs),
      matches: bytesOf(this.#matches),
      replacements: bytesOf(this.#replacements),
    };
  }

  restoreState(state: StateReader): void {
    state.memory("configs", this.#configs);
    state.memory("matches", this.#matches);
    state.memory("replacements", this.#replacements);
  }

  reset(): void {
    this.#configs.fill(0);
    this.#matches.fill(0);
    this.#replacements.fill(0);
  }

  config(vintf: number): number {
    return this.#configs[vintf]!;
  }

  /** Whose it is cannot change under its queues: what is enabled and stays so keeps VMID and HYP_OWN. */
  configure(vintf: number, value: number): void {
    const stays = (this.#configs[vintf]! & value & VINTF_EN) !== 0;
    if (!stays) this.#configs[vintf] = value & this.#configBits;
  }

  enabled(vintf: number): boolean {
    return (this.#configs[vintf]! & VINTF_EN) !== 0;
  }

  hypervisorOwned(vintf: number): boolean {
    return (this.#configs[vintf]! & VINTF_HYP_OWN) !== 0;
  }

  vmid(vintf: number): number {
    return (this.#configs[vintf]! >>> 1) & 0xffff;
  }

  match(vintf: number, index: number): number {
    return index < this.sids ? this.#matches[vintf * this.sids + index]! : 0;
  }

  replacement(vintf: number, index: number): number {
    return index < this.sids ? this.#replacements[vintf * this.sids + index]! : 0;
  }

  setMatch(vintf: number, index: number, value: number): void {
    if (index < this.sids) this.#matches[vintf * this.sids + index] = value & 0x1fffff;
  }

  setReplacement(vintf: number, index: number, value: number): void {
    if (index < this.sids) this.#replacements[vintf * this.sids + index] = value & 0xfffff;
  }

  /** The stream that a guest's id names, -1 for none. */
  replace(vintf: number, virtualSid: number): number {
    if (virtualSid >= 2 ** 20) return -1;
    const wanted = (virtualSid << 1) | 1;
    const first = vintf * this.sids;
    for (let index = first; index < first + this.sids; index++) {
      if (this.#matches[index] === wanted) return this.#replacements[index]!;
    }
    return -1;
  }
}
