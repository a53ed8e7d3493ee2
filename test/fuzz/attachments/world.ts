// The host of a round: two IOMMUs, a group of three functions of which one comes later, a function of its own behind each IOMMU.

import { type Machine, machine, name } from "../../host/kernel/machine.ts";
import type { Dice } from "./dice.ts";
import { KINDS, type Kind } from "./kinds.ts";
import type * as M from "./model.ts";
import { Prober } from "./prober.ts";

/** log2 of entries: small queues overflow and go round. */
const QUEUE_SIZES = [6, 16];

export interface Place {
  readonly device: M.Device;
  prober: Prober;
  /** The owner's descriptor; -1: closed. */
  fd: number;
}

export interface World {
  readonly kind: Kind;
  readonly host: Machine;
  /** None is plugged in yet; the first is the one that comes later. */
  readonly places: Place[];
  readonly groups: M.Group[];
  /** Entries of the page-request queues. */
  readonly requestEntries: number;
}

export function newProber({ rid, ats, pri, pasid }: M.Device): Prober {
  return new Prober(name(rid), { ats, pri: pri && ats, pasid });
}

export function makeWorld(dice: Dice): World {
  const kind = dice.pick(KINDS);
  const queueSizeLog2 = dice.pick(QUEUE_SIZES);
  const [first, second, late, alone, elsewhere] = [0x0100, 0x0101, 0x0102, 0x0108, 0x0110] as const;
  const host = machine({
    ramPages: 1024,
    ...kind.machine(dice, Math.min(queueSizeLog2, kind.rules.onePerIommu ? 12 : 16)),
    devices: [],
    groups: [[first, second, late]],
  });
  const group = (): M.Group => ({ members: [], slots: new Map() });
  const groups = [group(), group(), group()];
  const place = (rid: number, at: number, of: M.Group): Place => {
    // One that can do everything is always there.
    const able = (percent: number) => rid === first || dice.chance(percent);
    const device: M.Device = {
      ...{ rid, iommu: at, rules: kind.rules, group: of, ats: able(80), pri: able(80), pasid: able(75) },
      ...{ plugged: false, known: false, stranded: false, owner: null, boundId: 0, viommu: null, partial: [], due: [] },
    };
    of.members.push(device);
    return { device, prober: newProber(device), fd: -1 };
  };
  const [three, one, other] = groups as [M.Group, M.Group, M.Group];
  const places = [place(late, 0, three), place(first, 0, three), place(second, 0, three)];
  places.push(place(alone, 0, one), place(elsewhere, 1, other));
  // Linux's queues have 4096 entries, or what there is.
  return { kind, host, places, groups, requestEntries: Math.min(2 ** queueSizeLog2, 4096) };
}
