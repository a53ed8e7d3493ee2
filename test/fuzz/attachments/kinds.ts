// What a round must know of the IOMMUs of its host: how they are made, how a guest's first stage is written and said, and where the rules of
// their driver differ.

import { RELAY_PAGE_REQUESTS } from "../../../host/kernel/iommu/smmuv3/deviations.ts";
import * as N from "../../../host/uapi/riscv-nesting.ts";
import * as S from "../../../host/uapi/smmuv3-nesting.ts";
import { type GuestRam, GuestSv39 } from "../../host/kernel/guest.ts";
import { GuestContexts, GuestStage1 } from "../../host/kernel/guest-smmuv3.ts";
import type { MachineOptions } from "../../host/kernel/machine.ts";
import type { Dice } from "./dice.ts";
import type * as M from "./model.ts";

/** What a nested HWPT is to be: the guest's page table, or none. */
export interface NestedWish {
  readonly stage: GuestStage | "blocked" | "bypass";
  readonly ats: boolean;
  readonly pri: boolean;
}

export interface GuestStage {
  /** Frame of the IOVA, guest-physical frame. */
  map(from: number, to: number): void;
  readonly data: (wish: NestedWish) => Uint8Array;
}

export interface Kind {
  readonly name: string;
  readonly rules: M.Rules;
  /** Two IOMMUs; with queues of 2^`queueLog2` entries, as far as they may be so small. */
  machine(dice: Dice, queueLog2: number): MachineOptions;
  readonly viommuType: number;
  readonly nestedType: number;
  /** `index` tells an owner's stages apart: their tag. */
  stage(ram: GuestRam, index: number): GuestStage;
  /** A nested HWPT without a first stage. */
  plain(wish: NestedWish): Uint8Array;
}

const [V, EN_ATS, EN_PRI] = [1n, 2n, 4n];

const riscv: Kind = {
  name: "riscv",
  rules: { onePerIommu: false, parentsLog: true, ats: "asked", requests: "device's context" },
  machine(dice, queueSizeLog2) {
    const depth = dice.pick([{}, { PD20: false }, { PD20: false, PD17: false }]);
    const iommu = { capabilities: { T2GPA: dice.chance(50), AMO_HWAD: true, ...depth }, queueSizeLog2 };
    return { iommus: [iommu, iommu] };
  },
  viommuType: N.IOMMU_VIOMMU_TYPE_RISCV,
  nestedType: N.IOMMU_HWPT_DATA_RISCV,
  stage(ram, index) {
    const table = new GuestSv39(ram);
    return {
      map: (from, to) => table.map(BigInt(from) << 12n, BigInt(to) << 12n),
      data: (wish) => N.iommuHwptRiscv.encode({ tc: tcOf(wish), fsc: table.fsc, ta: BigInt(index + 2) << 12n }),
    };
  },
  plain: (wish) => N.iommuHwptRiscv.encode({ tc: wish.stage === "blocked" ? 0n : tcOf(wish), fsc: 0n, ta: 0n }),
};

function tcOf({ ats, pri }: NestedWish): bigint {
  return V | (ats ? EN_ATS : 0n) | (pri ? EN_PRI : 0n);
}

/** V, Config bypass. */
const STE_BYPASS = V | (4n << 1n);
const STE_EATS = 1n << 28n;

/** `relays`: page requests go to fault queues, as in no Linux. */
const smmuv3 = (relays: boolean): Kind => ({
  name: relays ? "smmuv3 that relays page requests" : "smmuv3",
  rules: { onePerIommu: true, parentsLog: false, ats: "where there is", requests: relays ? "wanted" : "never" },
  machine(dice, queueLog2) {
    const features = {
      ...dice.pick([{}, { SSIDSIZE: 8 }, { SSIDSIZE: 12 }, { CD2L: false }]),
      RIL: dice.chance(50),
      Hyp: dice.chance(50),
      MSI: dice.chance(50),
      CMDQS: Math.max(7, queueLog2),
      EVENTQS: queueLog2,
      PRIQS: queueLog2,
    };
    return { smmus: [{ features }, { features }], deviations: relays ? [RELAY_PAGE_REQUESTS] : [], ramPages: 2048 };
  },
  viommuType: S.IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
  nestedType: S.IOMMU_HWPT_DATA_ARM_SMMUV3,
  stage(ram, index) {
    const table = new GuestStage1(ram);
    const contexts = new GuestContexts(ram);
    contexts.set(0, table, { asid: index + 2 });
    return {
      map: (from, to) => table.map(BigInt(from) << 12n, BigInt(to) << 12n),
      data: ({ ats }) => S.iommuHwptArmSmmuv3.encode({ ste0: contexts.streamEntry(), ste1: ats ? STE_EATS : 0n }),
    };
  },
  plain: ({ stage }) => S.iommuHwptArmSmmuv3.encode({ ste0: stage === "blocked" ? 0n : STE_BYPASS, ste1: 0n }),
});

export const KINDS: readonly Kind[] = [riscv, smmuv3(false), smmuv3(true)];
